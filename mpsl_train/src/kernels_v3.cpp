// AVX2.
#define MPSL_VECTOR_BYTES 32
#define MPSL_KERNELS kernels_v3
#define MPSL_ISA_NAME "AVX2"
#include "kernels_impl.hpp"
