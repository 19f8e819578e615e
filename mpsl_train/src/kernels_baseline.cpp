// x86-64's, or any other processor's, 128-bit vectors.
#define MPSL_VECTOR_BYTES 16
#define MPSL_KERNELS kernels_baseline
#define MPSL_ISA_NAME "any CPU"
#include "kernels_impl.hpp"
