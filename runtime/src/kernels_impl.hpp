// The inner loops for one instruction set. The including file defines MPSL_VECTOR_BYTES (the width
// of its registers: 16, 32 or 64) and MPSL_KERNELS (the table to define); the compiler's -march
// does the rest. Everything else has internal linkage, see kernels.hpp.

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#include "kernels.hpp"

namespace mpsl {
namespace {

constexpr int kVectorBytes = MPSL_VECTOR_BYTES;
constexpr int kLanes = kVectorBytes / 4;

typedef float Float __attribute__((vector_size(kVectorBytes), may_alias));
typedef std::int32_t Mask __attribute__((vector_size(kVectorBytes), may_alias));

#define MPSL_INLINE inline __attribute__((always_inline))

// Not Float{} + value, which is an addition: 0 + −0 is another number.
MPSL_INLINE Float splat(float value) {
#if MPSL_VECTOR_BYTES == 64
    return (Float)_mm512_set1_ps(value);
#elif MPSL_VECTOR_BYTES == 32
    return (Float)_mm256_set1_ps(value);
#else
    return Float{value, value, value, value};
#endif
}

MPSL_INLINE Float select(Mask mask, Float yes, Float no) {
    return (Float)((mask & (Mask)yes) | (~mask & (Mask)no));
}

// Bit k is set where u[k] ≥ threshold[k].
MPSL_INLINE std::uint64_t bits_at_least(Float u, Float threshold) {
#if MPSL_VECTOR_BYTES == 64
    return _mm512_cmp_ps_mask((__m512)u, (__m512)threshold, _CMP_GE_OQ);
#elif MPSL_VECTOR_BYTES == 32
    return std::uint32_t(
        _mm256_movemask_ps(_mm256_cmp_ps((__m256)u, (__m256)threshold, _CMP_GE_OQ)));
#elif defined(__SSE2__)
    return std::uint32_t(_mm_movemask_ps(_mm_cmpge_ps((__m128)u, (__m128)threshold)));
#else
    const Mask mask = u >= threshold;
    std::uint64_t bits = 0;
    for (int k = 0; k < kLanes; ++k) bits |= std::uint64_t(mask[k] & 1) << k;
    return bits;
#endif
}

// Appends base + step·k for each bit k of `mask`. May write kListSlack entries too many.
MPSL_INLINE std::uint16_t* expand(std::uint64_t mask, int base, int step, std::uint16_t* out) {
#if defined(__AVX512VBMI2__)
    alignas(64) static constexpr std::uint16_t kLanesOfWord[64] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    const __m512i first = _mm512_set1_epi16(std::int16_t(base));
    const __m512i steps = _mm512_set1_epi16(std::int16_t(step));
    for (int half = 0; half < 2; ++half) {
        const __mmask32 here = __mmask32(mask >> 32 * half);
        const __m512i lanes = _mm512_load_si512(kLanesOfWord + 32 * half);
        const __m512i offsets = _mm512_add_epi16(first, _mm512_mullo_epi16(lanes, steps));
        _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(here, offsets));
        out += __builtin_popcount(here);
    }
#elif MPSL_VECTOR_BYTES == 64
    const __m512i lanes =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i rows = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(step));
    for (int group = 0; group < 64; group += 16) {
        const __mmask16 here = __mmask16(mask >> group);
        const __m512i offsets = _mm512_add_epi32(rows, _mm512_set1_epi32(base + group * step));
        _mm256_storeu_si256((__m256i*)out,
                            _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(here, offsets)));
        out += __builtin_popcount(here);
    }
#else
    for (; mask; mask &= mask - 1) *out++ = std::uint16_t(base + step * __builtin_ctzll(mask));
#endif
    return out;
}

constexpr int kMostWords = kRowChannels / 64;

void build_lists(ListJob& job) {
    const std::uint64_t* const source = job.spikes + job.first_word;
    const std::size_t right = job.words, down = std::size_t(job.source_columns) * job.words;
    const int word_step = 64 * job.step;
    std::uint16_t* out = job.offsets + job.first_offset;
    std::uint64_t synops = 0;
    for (int y = 0; y < job.rows; ++y) {
        for (int x = 0; x < job.columns; ++x) {
            PixelSpikes& pixel = job.pixels[y * job.columns + x];
            std::uint16_t* const begin = out;
            int spikes;
            if (job.pooled) {
                const std::uint64_t* const a = source + 2 * y * down + 2 * x * right;
                std::uint64_t fours[kMostWords], twos[kMostWords], ones[kMostWords];
                for (int w = 0; w < job.word_count; ++w) {
                    const std::uint64_t nw = a[w], ne = a[w + right];
                    const std::uint64_t sw = a[w + down], se = a[w + down + right];
                    const std::uint64_t top = nw ^ ne, top_carry = nw & ne;
                    const std::uint64_t bottom = sw ^ se, bottom_carry = sw & se;
                    ones[w] = top ^ bottom;
                    twos[w] = top_carry ^ bottom_carry ^ (top & bottom);
                    fours[w] = top_carry & bottom_carry;
                }
                for (int w = 0; w < job.word_count; ++w)
                    out = expand(fours[w], w * word_step, job.step, out);
                const int n4 = int(out - begin);
                for (int w = 0; w < job.word_count; ++w)
                    out = expand(twos[w], w * word_step, job.step, out);
                const int n2 = int(out - begin);
                for (int w = 0; w < job.word_count; ++w)
                    out = expand(ones[w], w * word_step, job.step, out);
                pixel.fours_end = std::uint16_t(n4);
                pixel.twos_end = std::uint16_t(n2);
                // 4·n4 + 2·(n2 − n4) + (n1 − n2)
                spikes = 2 * n4 + n2 + int(out - begin);
            } else {
                const std::uint64_t* const a = source + y * down + x * right;
                for (int w = 0; w < job.word_count; ++w)
                    out = expand(a[w], w * word_step, job.step, out);
                pixel.fours_end = pixel.twos_end = 0;
                spikes = int(out - begin);
            }
            pixel.begin = std::uint32_t(begin - job.offsets);
            pixel.end = std::uint16_t(out - begin);
            synops += std::uint64_t(spikes) * job.fanout[y * job.columns + x];
        }
    }
    job.synops = synops;
    job.end_offset = std::uint32_t(out - job.offsets);
}

// sum[0 … Vectors−1] += the rows at `slab` + offsets[0 … count−1]. Rows are added in pairs, which
// halves the chain of dependent additions.
template <int Vectors, class Vector>
MPSL_INLINE void add_rows(Vector* sum, const char* slab, const std::uint16_t* offsets, int count) {
    int i = 0;
    for (; i + 1 < count; i += 2) {
        const Vector* const a = (const Vector*)(slab + offsets[i]);
        const Vector* const b = (const Vector*)(slab + offsets[i + 1]);
        for (int k = 0; k < Vectors; ++k) sum[k] += a[k] + b[k];
    }
    if (i < count) {
        const Vector* const a = (const Vector*)(slab + offsets[i]);
        for (int k = 0; k < Vectors; ++k) sum[k] += a[k];
    }
}

// sum[0 … Vectors−1] = what one input pixel adds; fours and twos by doubling (Horner).
template <int Vectors, class Vector>
MPSL_INLINE void sum_pixel(const PixelSpikes& pixel, const char* slab,
                           const std::uint16_t* offsets, Vector* sum) {
    for (int k = 0; k < Vectors; ++k) sum[k] = Vector{};
    if (pixel.twos_end) {
        if (pixel.fours_end) {
            add_rows<Vectors>(sum, slab, offsets, pixel.fours_end);
            for (int k = 0; k < Vectors; ++k) sum[k] += sum[k];
        }
        add_rows<Vectors>(sum, slab, offsets + pixel.fours_end, pixel.twos_end - pixel.fours_end);
        for (int k = 0; k < Vectors; ++k) sum[k] += sum[k];
    }
    add_rows<Vectors>(sum, slab, offsets + pixel.twos_end, pixel.end - pixel.twos_end);
}

template <int Width>
void gather_width(const GatherJob& job) {
    constexpr int kVectors = Width / kLanes;
    // Sums of a part must fit the registers; narrow registers take a row in two parts.
    constexpr int kPart = kVectors < 8 ? kVectors : 8;
    const char* const slab = (const char*)job.slab;
    const TapWindow& window = job.window;
    for (int y = window.row_begin; y < window.row_end; ++y) {
        const PixelSpikes* const input =
            job.pixels +
            std::ptrdiff_t(y * window.row_stride + window.row_offset) * window.input_columns +
            window.column_offset;
        float* const output = job.current + std::size_t(y) * window.output_columns * Width;
        for (int x = window.column_begin; x < window.column_end; ++x) {
            const PixelSpikes& pixel = input[std::ptrdiff_t(x) * window.column_stride];
            if (!pixel.end) continue;
            const std::uint16_t* const offsets = job.offsets + pixel.begin;
            Float* const current = (Float*)(output + std::size_t(x) * Width);
            for (int part = 0; part < kVectors; part += kPart) {
                Float sum[kPart];
                sum_pixel<kPart>(pixel, slab + part * kVectorBytes, offsets, sum);
                for (int k = 0; k < kPart; ++k) current[part + k] += sum[k];
            }
        }
    }
}

void gather(const GatherJob& job) {
    if (job.width == 64) gather_width<64>(job);
    else if (job.width == 32) gather_width<32>(job);
    else gather_width<16>(job);
}

#include "kernels_int8.hpp"
#include "kernels_tiles.hpp"

template <int Width>
void gather_events_width(const EventJob& job) {
    constexpr int kVectors = Width / kLanes;
    constexpr int kPart = kVectors < 8 ? kVectors : 8;
    for (std::size_t output = 0; output < job.outputs; ++output) {
        const EventReach* const first = job.reached + job.begin[output];
        const EventReach* const end = job.reached + job.begin[output + 1];
        if (first == end) continue;
        for (int part = 0; part < kVectors; part += kPart) {
            Float sum[kPart];
            for (int k = 0; k < kPart; ++k) sum[k] = Float{};
            for (const EventReach* event = first; event < end; ++event) {
                const int channel = event->channel - job.first_channel;
                if (channel < 0 || channel >= job.channel_count) continue;
                const std::size_t row = std::size_t(event->tap) * job.channel_count + channel;
                const Float* const weight = (const Float*)(job.weights + row * Width) + part;
                const Float value = splat(event->value);
                for (int k = 0; k < kPart; ++k) sum[k] += weight[k] * value;
            }
            Float* const current = (Float*)(job.current + output * Width) + part;
            for (int k = 0; k < kPart; ++k) current[k] += sum[k];
        }
    }
}

void gather_events(const EventJob& job) {
    if (job.width == 64) gather_events_width<64>(job);
    else if (job.width == 32) gather_events_width<32>(job);
    else gather_events_width<16>(job);
}

#include "kernels_dense.hpp"
#include "kernels_fire.hpp"

std::size_t find_nonzero(const float* values, std::size_t size, std::uint32_t* index) {
    std::size_t count = 0, i = 0;
#if MPSL_VECTOR_BYTES == 64
    for (; i + 16 <= size; i += 16) {
        unsigned bits = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), _mm512_setzero_ps(),
                                           _CMP_NEQ_UQ);
        for (; bits; bits &= bits - 1) index[count++] = std::uint32_t(i + __builtin_ctz(bits));
    }
#endif
    for (; i < size; ++i)
        if (values[i] != 0) index[count++] = std::uint32_t(i);
    return count;
}

}  // namespace

const Kernels MPSL_KERNELS = {
    MPSL_ISA_NAME, build_lists, gather,        gather_events, pair_rows, gather_int8, dense, dense_int8,
    count_spikes,  tiles,       MPSL_INT8_TILES,
    fire_uniform, fire_each, find_nonzero,
};

}  // namespace mpsl
