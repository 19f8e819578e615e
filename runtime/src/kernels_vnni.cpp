// AVX-512 with VNNI (four int8 products and their sum in one instruction) and VBMI2 (compress).
#define MPSL_VECTOR_BYTES 64
#define MPSL_KERNELS kernels_vnni
#define MPSL_ISA_NAME "vnni"
#include "kernels_impl.hpp"
