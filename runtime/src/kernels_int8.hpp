// The inner loops over int8 weights; a part of kernels_impl.hpp.
//
// Rows are summed as int16 and flushed to int32. Registers are widened by the processor's own
// instructions: __builtin_convertvector costs half the speed here.

typedef std::int32_t Int __attribute__((vector_size(kVectorBytes), may_alias));
typedef std::int16_t Short __attribute__((vector_size(kVectorBytes), may_alias));
constexpr int kShortLanes = kVectorBytes / 2;

// int8 [kShortLanes] -> int16.
MPSL_INLINE Short load_int8(const std::int8_t* from) {
#if MPSL_VECTOR_BYTES == 64
    return (Short)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)from));
#elif MPSL_VECTOR_BYTES == 32
    return (Short)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from));
#elif defined(__SSE2__)
    const __m128i bytes = _mm_loadl_epi64((const __m128i*)from);
    return (Short)_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
#else
    Short wide;
    for (int k = 0; k < kShortLanes; ++k) wide[k] = from[k];
    return wide;
#endif
}

// The lower and the upper half of `sum` as int32.
struct IntPair {
    Int low, high;
};

MPSL_INLINE IntPair widen(Short sum) {
#if MPSL_VECTOR_BYTES == 64
    const __m512i all = (__m512i)sum;
    return {(Int)_mm512_cvtepi16_epi32(_mm512_castsi512_si256(all)),
            (Int)_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(all, 1))};
#elif MPSL_VECTOR_BYTES == 32
    const __m256i all = (__m256i)sum;
    return {(Int)_mm256_cvtepi16_epi32(_mm256_castsi256_si128(all)),
            (Int)_mm256_cvtepi16_epi32(_mm256_extracti128_si256(all, 1))};
#elif defined(__SSE2__)
    const __m128i all = (__m128i)sum, sign = _mm_srai_epi16(all, 15);
    return {(Int)_mm_unpacklo_epi16(all, sign), (Int)_mm_unpackhi_epi16(all, sign)};
#else
    IntPair pair;
    for (int k = 0; k < kLanes; ++k) {
        pair.low[k] = sum[k];
        pair.high[k] = sum[k + kLanes];
    }
    return pair;
#endif
}

// current[0 … 2·Vectors−1] += times · sum[0 … Vectors−1]
template <int Vectors>
MPSL_INLINE void flush(const Short* sum, int times, Int* current) {
    for (int k = 0; k < Vectors; ++k) {
        const IntPair wide = widen(sum[k]);
        current[2 * k] += wide.low * times;
        current[2 * k + 1] += wide.high * times;
    }
}

// More spikes than an int16 sum may hold: the lists one after the other, in pieces.
template <int Vectors>
void gather_int8_crowd(const PixelSpikes& pixel, const char* slab, const std::uint16_t* offsets,
                       Int* current) {
    const int ends[] = {pixel.fours_end, pixel.twos_end, pixel.end};
    int at = 0;
    for (int plane = 0; plane < 3; ++plane) {
        while (at < ends[plane]) {
            const int left = ends[plane] - at;
            const int count = left < kInt16Spikes ? left : kInt16Spikes;
            Short sum[Vectors];
            for (int k = 0; k < Vectors; ++k) sum[k] = Short{};
            add_rows<Vectors>(sum, slab, offsets + at, count);
            flush<Vectors>(sum, 4 >> plane, current);
            at += count;
        }
    }
}

template <int Width>
void gather_int8_width(const Int8GatherJob& job) {
    constexpr int kVectors = Width / kShortLanes;
    constexpr int kPart = kVectors < 8 ? kVectors : 8;
    constexpr int kPartChannels = kPart * kShortLanes;
    // Parts of a row that lie in one block of 64.
    constexpr int kFlush = kPartChannels <= 64 ? kPart : 64 / kShortLanes;
    for (int i = 0; i < job.channels * Width; i += kShortLanes)
        *(Short*)(job.slab + i) = load_int8(job.weights + i);
    const char* const slab = (const char*)job.slab;
    const TapWindow& window = job.window;
    constexpr int kBlockWidth = Width < 64 ? Width : 64;
    for (int y = window.row_begin; y < window.row_end; ++y) {
        const PixelSpikes* const input =
            job.pixels +
            std::ptrdiff_t(y * window.row_stride + window.row_offset) * window.input_columns +
            window.column_offset;
        std::int32_t* const output =
            job.current + std::size_t(y) * window.output_columns * kBlockWidth;
        for (int x = window.column_begin; x < window.column_end; ++x) {
            const PixelSpikes& pixel = input[std::ptrdiff_t(x) * window.column_stride];
            if (!pixel.end) continue;
            const std::uint16_t* const offsets = job.offsets + pixel.begin;
            // 4·n4 + 2·(n2 − n4) + (n1 − n2)
            const bool crowd = 2 * pixel.fours_end + pixel.twos_end + pixel.end > kInt16Spikes;
            for (int part = 0; part < kVectors; part += kPart) {
                Short sum[kPart];
                if (!crowd) sum_pixel<kPart>(pixel, slab + part * kVectorBytes, offsets, sum);
                for (int piece = 0; piece < kPart; piece += kFlush) {
                    const int channel = (part + piece) * kShortLanes;
                    Int* const current =
                        (Int*)(output + channel / 64 * job.block_size +
                               std::size_t(x) * kBlockWidth + channel % 64);
                    if (crowd)
                        gather_int8_crowd<kFlush>(pixel, slab + (part + piece) * kVectorBytes,
                                                  offsets, current);
                    else
                        flush<kFlush>(sum + piece, 1, current);
                }
            }
        }
    }
}

void gather_int8(const Int8GatherJob& job) {
    if (job.width == 128) gather_int8_width<128>(job);
    else if (job.width == 64) gather_int8_width<64>(job);
    else gather_int8_width<32>(job);
}

// Eight rows at once, as in `dense`; 8 rows of at most 4 · 127 fit an int16 sum.
void dense_int8(const Int8DenseJob& job) {
    const std::size_t out = job.padded_out;
    for (std::size_t i = 0; i < job.row_count; i += 8) {
        const std::size_t left = job.row_count - i;
        const std::int8_t* row[8];
        Short value[8];
        for (std::size_t k = 0; k < 8; ++k) {
            const ActiveRow active = job.rows[k < left ? i + k : i];
            row[k] = job.weights + active.row * out;
            const std::int16_t count = k < left ? std::int16_t(active.value) : std::int16_t(0);
            value[k] = Short{} + count;
        }
        for (std::size_t j = 0; j < out; j += kShortLanes) {
            Short sum = Short{};
            for (int k = 0; k < 8; ++k) sum += load_int8(row[k] + j) * value[k];
            flush<1>(&sum, 1, (Int*)(job.current + j));
        }
    }
}
