#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.hpp"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace mpsl {

namespace {

struct Choice {
    const Kernels* kernels;
    bool runs_here;
};

#if defined(__x86_64__)
bool runs_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}

bool runs_v4() {
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

bool runs_vnni() {
    return runs_v4() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi2");
}
#elif defined(__aarch64__)
bool runs_dotprod() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#endif

}  // namespace

const Kernels& select_kernels() {
    // Best first.
    const Choice choices[] = {
#if defined(__x86_64__)
        {&kernels_vnni, runs_vnni()},
        {&kernels_v4, runs_v4()},
        {&kernels_v3, runs_v3()},
#elif defined(__aarch64__)
        {&kernels_dotprod, runs_dotprod()},
#endif
        {&kernels_baseline, true},
    };
    const char* wish = std::getenv("MPSL_ISA");
    std::string known;
    for (const Choice& choice : choices) {
        if (!choice.runs_here) continue;
        if (!wish || !*wish || std::string(wish) == choice.kernels->name) return *choice.kernels;
        known += std::string(known.empty() ? "" : ", ") + choice.kernels->name;
    }
    throw std::invalid_argument("MPSL_ISA is not known here; got " + std::string(wish) +
                                "; expected one of " + known);
}

}  // namespace mpsl
