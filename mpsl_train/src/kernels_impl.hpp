// All kernels for one instruction set. The including file defines MPSL_VECTOR_BYTES (the width of its
// registers: 16, 32 or 64), MPSL_KERNELS (the table to define) and MPSL_ISA_NAME; the compiler's
// -march does the rest. Everything else has internal linkage, so that the linker cannot take one
// instruction set's function for another's.

#include "banks.hpp"
#include "elementwise.hpp"
#include "kernels.hpp"
#include "sparse.hpp"

namespace mpsl {

namespace {

template <class T>
constexpr Kernels<T> table() {
    return {MPSL_ISA_NAME, fire<T>,      pool<T>, unfire<T>,    sums<T>,     finish<T>,
            learn<T>,      decay_add<T>, dot<T>,  transpose<T>, convolve<T>, correlate<T>,
            mean<T>,       nonzero<T>};
}

}  // namespace

extern const KernelSet MPSL_KERNELS;
const KernelSet MPSL_KERNELS = {table<float>(), table<double>()};

}  // namespace mpsl
