#include <cstdlib>
#include <stdexcept>
#include <string>

#include "functions.hpp"

MPSL_FUNCTIONS(baseline)
#if defined(__x86_64__)
MPSL_FUNCTIONS(v3)
MPSL_FUNCTIONS(v4)
#endif

#define MPSL_TABLE(isa, title)                                                                    \
    Kernels<T> {                                                                                  \
        title, isa::fire<T>, isa::pool<T>, isa::unfire<T>, isa::sums<T>, isa::finish<T>,          \
            isa::learn<T>, isa::decay_add<T>, isa::dot<T>, isa::transpose<T>, isa::convolve<T>,   \
            isa::correlate<T>, isa::mean<T>, isa::nonzero<T>                                      \
    }

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

template <class T>
Kernels<T> select() {
    const char* variable = std::getenv("MPSL_ISA");
    const std::string wish = variable ? variable : "";
#if defined(__x86_64__)
    // The engine's `vnni` is v4 and more; nothing of it is of use here.
    if (runs_v4() && (wish.empty() || wish == "v4" || wish == "vnni"))
        return MPSL_TABLE(v4, "AVX-512");
    if (runs_v3() && (wish.empty() || wish == "v3")) return MPSL_TABLE(v3, "AVX2");
    if (!wish.empty() && wish != "baseline")
        throw std::invalid_argument("MPSL_ISA is not known here; got " + wish +
                                    "; expected v4, v3 or baseline");
#endif
    return MPSL_TABLE(baseline, "any CPU");
}

}  // namespace

template <class T>
const Kernels<T>& kernels() {
    static const Kernels<T> chosen = select<T>();
    return chosen;
}

template const Kernels<float>& kernels();
template const Kernels<double>& kernels();

}  // namespace mpsl
