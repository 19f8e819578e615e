// The dense loops, for steps in which so much fires that lists cost more than they save; a part of
// kernels_impl.hpp. A tile of up to 6 pixels x 64 outputs stays in registers over all taps.

constexpr int kTilePixels = 6;
#if defined(__AVX512VNNI__)
constexpr bool kHasInt8Tiles = true;
#else
constexpr bool kHasInt8Tiles = false;
#endif

// counts[0 … 63] += the bits of `word`.
MPSL_INLINE void count_bits(std::uint64_t word, std::uint8_t* counts) {
#if MPSL_VECTOR_BYTES == 64
    const __m512i ones = _mm512_maskz_set1_epi8(word, 1);
    _mm512_storeu_si512(counts, _mm512_add_epi8(_mm512_loadu_si512(counts), ones));
#else
    for (int bit = 0; bit < 64; ++bit) counts[bit] += word >> bit & 1;
#endif
}

void count_spikes(CountJob& job) {
    std::uint64_t synops = 0;
    const int side = job.pooled ? 2 : 1;
    for (int y = 0; y < job.rows; ++y)
        for (int x = 0; x < job.columns; ++x) {
            const std::size_t pixel = std::size_t(y + job.top) * job.padded_columns + x + job.left;
            std::uint8_t* const counts = job.counts + pixel * job.words * 64;
            int spikes = 0;
            for (int w = 0; w < job.words; ++w) {
                for (int b = 0; b < 64; ++b) counts[w * 64 + b] = 0;
                for (int part = 0; part < side * side; ++part) {
                    const std::size_t from =
                        std::size_t(y * side + part / 2) * job.source_columns + x * side + part % 2;
                    const std::uint64_t word = job.spikes[from * job.words + w];
                    count_bits(word, counts + w * 64);
                    spikes += __builtin_popcountll(word);
                }
                if (!job.values) continue;
                float* const values = job.values + (pixel * job.words + w) * 64;
                for (int b = 0; b < 64; ++b) values[b] = counts[w * 64 + b];
            }
            synops += std::uint64_t(spikes) * job.fanout[y * job.columns + x];
        }
    job.synops = synops;
}

MPSL_INLINE Float multiply_add(Float a, Float b, Float sum) {
#if MPSL_VECTOR_BYTES == 64
    return (Float)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif MPSL_VECTOR_BYTES == 32
    return (Float)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}

// `Pixels` outputs of one row, `Vectors` of their channels, from `input` of the first on.
template <int Pixels, int Vectors>
MPSL_INLINE void tile_float(const TileJob& job, const float* input, const float* weights,
                            int valid, float* current) {
    Float sum[Pixels][Vectors];
    for (int i = 0; i < Pixels; ++i)
        for (int k = 0; k < Vectors; ++k) sum[i][k] = Float{};
    for (int tap = 0; tap < job.taps; ++tap) {
        const float* const from = input + job.tap_offsets[tap];
        for (int c = 0; c < job.channels; ++c, weights += 64) {
            Float weight[Vectors];
            for (int k = 0; k < Vectors; ++k) weight[k] = ((const Float*)weights)[k];
#pragma GCC unroll 6
            for (int i = 0; i < Pixels; ++i) {
                const Float value = splat(from[i * job.pixel_step + c]);
                for (int k = 0; k < Vectors; ++k)
                    sum[i][k] = multiply_add(weight[k], value, sum[i][k]);
            }
        }
    }
    for (int i = 0; i < valid; ++i)
        for (int k = 0; k < Vectors; ++k) ((Float*)(current + i * 64))[k] += sum[i][k];
}

#if defined(__AVX512VNNI__)
// The same in whole numbers, four channels in one instruction.
template <int Pixels>
MPSL_INLINE void tile_int8(const TileJob& job, const std::uint8_t* input,
                           const std::int8_t* weights, int valid, std::int32_t* current) {
    __m512i sum[Pixels][4];
    for (int i = 0; i < Pixels; ++i)
        for (int k = 0; k < 4; ++k) sum[i][k] = _mm512_setzero_si512();
    for (int tap = 0; tap < job.taps; ++tap) {
        const std::uint8_t* const from = input + job.tap_offsets[tap];
        for (int c = 0; c < job.channels; c += 4, weights += 256) {
            __m512i weight[4];
            for (int k = 0; k < 4; ++k) weight[k] = _mm512_load_si512(weights + 64 * k);
#pragma GCC unroll 6
            for (int i = 0; i < Pixels; ++i) {
                std::int32_t four;
                __builtin_memcpy(&four, from + i * job.pixel_step + c, 4);
                const __m512i value = _mm512_set1_epi32(four);
                for (int k = 0; k < 4; ++k)
                    sum[i][k] = _mm512_dpbusd_epi32(sum[i][k], value, weight[k]);
            }
        }
    }
    for (int i = 0; i < valid; ++i)
        for (int k = 0; k < 4; ++k) ((Int*)(current + i * 64))[k] += (Int)sum[i][k];
}
#endif

template <int Pixels>
void tiles_of(const TileJob& job) {
    for (int y = 0; y < job.output_rows; ++y)
        for (int x = 0; x < job.output_columns; x += Pixels) {
            const int left = job.output_columns - x, valid = left < Pixels ? left : Pixels;
            const std::size_t from = std::size_t(y) * job.row_step + std::size_t(x) * job.pixel_step;
            const std::size_t to = (std::size_t(y) * job.output_columns + x) * 64;
#if defined(__AVX512VNNI__)
            if (job.counts) {
                tile_int8<Pixels>(job, job.counts + from, (const std::int8_t*)job.weights, valid,
                                  (std::int32_t*)job.current + to);
                continue;
            }
#endif
            // Registers: 32 of 512 bits hold 64 outputs, 16 narrower ones two vectors.
            constexpr int kPart = kVectorBytes == 64 ? 4 : 2;
            for (int channel = 0; channel < 64; channel += kPart * kLanes)
                tile_float<Pixels, kPart>(job, job.values + from,
                                          (const float*)job.weights + channel, valid,
                                          (float*)job.current + to + channel);
        }
}

// Rows of pixels in equal tiles: 8 are 4 + 4, not 6 + 2.
void tiles(const TileJob& job) {
    const int count = (job.output_columns + kTilePixels - 1) / kTilePixels;
    switch ((job.output_columns + count - 1) / count) {
        case 1: return tiles_of<1>(job);
        case 2: return tiles_of<2>(job);
        case 3: return tiles_of<3>(job);
        case 4: return tiles_of<4>(job);
        case 5: return tiles_of<5>(job);
        default: return tiles_of<6>(job);
    }
}
