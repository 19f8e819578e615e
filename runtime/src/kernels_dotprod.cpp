// NEON with dot products (four int8 products and their sum in one instruction).
#define MPSL_VECTOR_BYTES 16
#define MPSL_KERNELS kernels_dotprod
#define MPSL_ISA_NAME "dotprod"
#include "kernels_impl.hpp"
