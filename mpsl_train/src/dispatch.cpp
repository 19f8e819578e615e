#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.hpp"

namespace mpsl {

namespace {

#if defined(__x86_64__)
bool runs_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

bool runs_v4() {
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

const KernelSet& select() {
    const char* variable = std::getenv("MPSL_ISA");
    const std::string wish = variable ? variable : "";
#if defined(__x86_64__)
    // The engine's `vnni` is v4 and more; nothing of it is of use here.
    if (runs_v4() && (wish.empty() || wish == "v4" || wish == "vnni")) return kernels_v4;
    if (runs_v3() && (wish.empty() || wish == "v3")) return kernels_v3;
    if (!wish.empty() && wish != "baseline")
        throw std::invalid_argument("MPSL_ISA is not known here; got " + wish +
                                    "; expected v4, v3 or baseline");
#endif
    return kernels_baseline;
}

const KernelSet& chosen() {
    static const KernelSet& set = select();
    return set;
}

}  // namespace

template <>
const Kernels<float>& kernels() {
    return chosen().of_float;
}

template <>
const Kernels<double>& kernels() {
    return chosen().of_double;
}

}  // namespace mpsl
