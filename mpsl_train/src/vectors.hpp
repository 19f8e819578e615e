// Vectors of one instruction set's width, and their fused multiply-add.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mpsl {

namespace {

using Int = std::int64_t;

constexpr int kVectorBytes = MPSL_VECTOR_BYTES;

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
    static constexpr Int lanes = kVectorBytes / sizeof(T);
};

typedef Vector<float>::type Floats;
typedef Vector<double>::type Doubles;

inline Floats splat(float value) { return Floats{} + value; }
inline Doubles splat(double value) { return Doubles{} + value; }

// a·b + c, rounded once where the instruction set can. Said here and not left to the compiler: what
// is element by element must round as torch does, and it is in the same file.
#if MPSL_VECTOR_BYTES == 64
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
    return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif MPSL_VECTOR_BYTES == 32
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
    return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__aarch64__)
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
    return (Doubles)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return a * b + c; }
#endif

}  // namespace

}  // namespace mpsl
