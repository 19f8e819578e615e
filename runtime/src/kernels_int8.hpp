// The inner loops over int8 weights; a part of kernels_impl.hpp.
//
// The rows of one tap stay in the first-level cache while all pixels pass by. A pixel's rows are
// summed as int16 and flushed to int32. Registers are widened by the processor's own instructions:
// __builtin_convertvector costs half the speed here.
//
// Rows of a convolution are not widened at all. Two weights lie in 16 bits, the lower one plus 128, so
// that v = 256·high + low + 128. Σv and Σ⌊v/256⌋ = Σhigh take one load, one shift and two additions
// for two registers of sums, and Σlow = Σv − 256·Σhigh − 128·rows, in 16 bits that may wrap.

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

typedef std::uint16_t Wrapping __attribute__((vector_size(kVectorBytes), may_alias));

// Whether rows are so wide that two registers of sums come from one of weights.
constexpr bool are_paired(int width) { return width >= 2 * kShortLanes; }

// Rows [count][width] from plain weights into the form above, in place.
void pair_rows(std::int8_t* rows, std::size_t count, int width) {
    if (!are_paired(width)) return;
    for (std::int8_t* row = rows; row < rows + count * width; row += kVectorBytes) {
        std::int8_t plain[kVectorBytes];
        __builtin_memcpy(plain, row, kVectorBytes);
        for (int k = 0; k < kShortLanes; ++k) {
            row[2 * k] = std::int8_t(plain[k] ^ 0x80);
            row[2 * k + 1] = plain[kShortLanes + k];
        }
    }
}

template <int Vectors>
MPSL_INLINE void twice(Short* sum) {
    for (int k = 0; k < Vectors; ++k) sum[k] = (Short)((Wrapping)sum[k] + (Wrapping)sum[k]);
}

template <int Width, int Vectors>
MPSL_INLINE void add_int8_rows(Short* sum, const std::int8_t* weights, const std::uint16_t* rows,
                               int count) {
    for (int i = 0; i < count; ++i) {
        const std::int8_t* const row = weights + std::size_t(rows[i]) * Width;
        if (are_paired(Width)) {
            for (int k = 0; k + 1 < Vectors; k += 2) {
                const Short two = *(const Short*)(row + k * kShortLanes);
                sum[k] = (Short)((Wrapping)sum[k] + (Wrapping)two);
                sum[k + 1] += two >> 8;
            }
        } else {
            for (int k = 0; k < Vectors; ++k) sum[k] += load_int8(row + k * kShortLanes);
        }
    }
}

// Sums of pairs -> sums of weights; `rows`: that were added, each as often as it was.
template <int Width, int Vectors>
MPSL_INLINE void part_pairs(Short* sum, int rows) {
    if (!are_paired(Width)) return;
    const Wrapping offset = Wrapping{} + std::uint16_t(128 * rows);
    for (int k = 0; k + 1 < Vectors; k += 2)
        sum[k] = (Short)((Wrapping)sum[k] - ((Wrapping)sum[k + 1] << 8) - offset);
}

// current += sum, both from the same channel on; `current` in blocks of 64.
template <int Vectors>
MPSL_INLINE void flush_blocks(const Short* sum, int times, std::int32_t* current,
                              std::size_t block_size) {
    constexpr int kPiece = Vectors * kShortLanes <= 64 ? Vectors : 64 / kShortLanes;
    for (int k = 0; k < Vectors; k += kPiece)
        flush<kPiece>(sum + k, times, (Int*)(current + k * kShortLanes / 64 * block_size));
}

// One pixel with more spikes than an int16 sum may hold.
template <int Width, int Vectors>
__attribute__((noinline)) void sum_crowd(const PixelSpikes& pixel, const std::uint16_t* list,
                                         const std::int8_t* weights, std::int32_t* current,
                                         std::size_t block_size) {
    const int ends[] = {0, pixel.fours_end, pixel.twos_end, pixel.end};
    for (int plane = 0; plane < 3; ++plane)
        for (int at = ends[plane]; at < ends[plane + 1]; at += kInt16Spikes) {
            const int left = ends[plane + 1] - at;
            const int rows = left < kInt16Spikes ? left : kInt16Spikes;
            Short sum[Vectors];
            for (int k = 0; k < Vectors; ++k) sum[k] = Short{};
            add_int8_rows<Width, Vectors>(sum, weights, list + at, rows);
            part_pairs<Width, Vectors>(sum, rows);
            flush_blocks<Vectors>(sum, 4 >> plane, current, block_size);
        }
}

// Adds the rows that one input pixel names to one output; fours and twos by doubling (Horner).
template <int Width>
MPSL_INLINE void sum_pixel_int8(const PixelSpikes& pixel, const std::uint16_t* list,
                                const std::int8_t* weights, std::int32_t* current,
                                std::size_t block_size) {
    constexpr int kVectors = Width / kShortLanes;
    // Of wider parts the additions wait for their loads: 128 bytes, in at most eight registers.
    constexpr int kMost = kVectorBytes == 64 ? 4 : 8;
    constexpr int kPart = kVectors < kMost ? kVectors : kMost;
    // 4·n4 + 2·(n2 − n4) + (n1 − n2)
    const int spikes = 2 * pixel.fours_end + pixel.twos_end + pixel.end;
    for (int part = 0; part < kVectors; part += kPart) {
        const int channel = part * kShortLanes;
        const std::int8_t* const from = weights + channel;
        std::int32_t* const to = current + channel / 64 * block_size + channel % 64;
        if (spikes > kInt16Spikes) {
            sum_crowd<Width, kPart>(pixel, list, from, to, block_size);
            continue;
        }
        Short sum[kPart];
        for (int k = 0; k < kPart; ++k) sum[k] = Short{};
        if (pixel.twos_end) {
            if (pixel.fours_end) {
                add_int8_rows<Width, kPart>(sum, from, list, pixel.fours_end);
                twice<kPart>(sum);
            }
            add_int8_rows<Width, kPart>(sum, from, list + pixel.fours_end,
                                        pixel.twos_end - pixel.fours_end);
            twice<kPart>(sum);
        }
        add_int8_rows<Width, kPart>(sum, from, list + pixel.twos_end, pixel.end - pixel.twos_end);
        part_pairs<Width, kPart>(sum, spikes);
        flush_blocks<kPart>(sum, 1, to, block_size);
    }
}

// One tap and one chunk of channels, over all outputs of the job.
template <int Width>
void gather_int8_tap(const Int8GatherJob& job, int row_tap, int column_tap, int chunk) {
    constexpr int kBlockWidth = Width < 64 ? Width : 64;
    const std::size_t tap = std::size_t(row_tap) * job.columns.taps + column_tap;
    const std::int8_t* const slab = job.weights + (tap * job.channels + chunk * kRowChannels) * Width;
    const PixelSpikes* const pixels =
        job.pixels + std::size_t(chunk) * job.rows.input * job.columns.input;
    std::int32_t* current = job.current;
    for (int y = job.row_begin; y < job.row_end; ++y) {
        const int row = y * job.rows.stride - job.rows.before + row_tap * job.rows.dilation;
        const bool is_outside = row < 0 || row >= job.rows.input;
        for (int x = job.column_begin; x < job.column_end; ++x, current += kBlockWidth) {
            const int column =
                x * job.columns.stride - job.columns.before + column_tap * job.columns.dilation;
            if (is_outside || column < 0 || column >= job.columns.input) continue;
            const PixelSpikes& pixel = pixels[row * job.columns.input + column];
            if (!pixel.end) continue;
            sum_pixel_int8<Width>(pixel, job.lists + pixel.begin, slab, current, job.block_size);
        }
    }
}

template <int Width>
void gather_int8_width(const Int8GatherJob& job) {
    for (int chunk = 0; chunk < job.chunks; ++chunk)
        for (int i = 0; i < job.rows.taps; ++i)
            for (int j = 0; j < job.columns.taps; ++j) gather_int8_tap<Width>(job, i, j, chunk);
}

void gather_int8(const Int8GatherJob& job) {
    if (job.width == 256) gather_int8_width<256>(job);
    else if (job.width == 128) gather_int8_width<128>(job);
    else if (job.width == 64) gather_int8_width<64>(job);
    else gather_int8_width<32>(job);
}
