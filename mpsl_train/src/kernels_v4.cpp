// AVX-512.
#define MPSL_VECTOR_BYTES 64
#define MPSL_KERNELS kernels_v4
#define MPSL_ISA_NAME "AVX-512"
#include "kernels_impl.hpp"
