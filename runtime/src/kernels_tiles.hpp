// The dense loops, for steps in which so much fires that lists cost more than they save; a part of
// kernels_impl.hpp. A slab of weights, some channels of one tap, stays in the first-level cache
// while all pixels pass by, and a tile of up to 6 pixels x 16 or 64 outputs in registers.

constexpr int kTilePixels = 6;
// Registers: 32 hold 24 sums, 16 hold 12; weights, a value and a product need the others.
#if MPSL_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif
#if MPSL_VECTOR_BYTES > 16 || defined(__ARM_FEATURE_DOTPROD)
#define MPSL_INT8_TILES 1
#else
#define MPSL_INT8_TILES 0
#endif
// Outputs of a tile.
constexpr int kTileWidth = kTileVectors * kLanes;
// Channels of a slab, all its taps together. Of float32 a copy of 16 KiB, kTileWidth outputs of each
// row, stays in the first-level cache; where a tile takes whole rows, they come from the second as
// fast. The longer a slab, the less often sums go to memory.
constexpr int kFloatTileChannels = 256, kInt8TileChannels = 384;

// Some channels of one tap, or all channels of some taps; `outputs`: the first of a tile's.
struct Slab {
    const int* tap_offsets;  // of the first tap
    int taps, channels, first_channel;
    const void* weights;
    int output;
};

// The slab that comes next is asked for into the second-level cache, a few lines before each tile. Not
// where a tile takes whole rows of float32: the processor foresees them.
struct NextSlab {
    const char *at, *end;
    std::size_t bytes_of_tile;

    MPSL_INLINE void fetch() {
        const char* const to = at + bytes_of_tile < end ? at + bytes_of_tile : end;
        for (; at < to; at += 64) __builtin_prefetch(at, 0, 2);
    }
};

// counts[0 … 63] += the bits of `word`.
MPSL_INLINE void count_bits(std::uint64_t word, std::uint8_t* counts) {
#if MPSL_VECTOR_BYTES == 64
    const __m512i ones = _mm512_maskz_set1_epi8(word, 1);
    _mm512_storeu_si512(counts, _mm512_add_epi8(_mm512_loadu_si512(counts), ones));
#elif MPSL_VECTOR_BYTES == 32
    const __m256i byte_of_lane = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                                    0x0303030303030303);
    const __m256i bit_of_lane = _mm256_set1_epi64x(std::int64_t(0x8040201008040201));
    for (int half = 0; half < 2; ++half) {
        const __m256i all = _mm256_set1_epi32(std::int32_t(word >> 32 * half));
        const __m256i bits = _mm256_and_si256(_mm256_shuffle_epi8(all, byte_of_lane), bit_of_lane);
        __m256i* const to = (__m256i*)(counts + 32 * half);
        // Equal is −1.
        _mm256_storeu_si256(to, _mm256_sub_epi8(_mm256_loadu_si256(to),
                                                _mm256_cmpeq_epi8(bits, bit_of_lane)));
    }
#else
    // Eight bits become eight bytes: byte k keeps bit k, and 0x7f more carries it to the top.
    constexpr std::uint64_t kEach = 0x0101010101010101;
    for (int i = 0; i < 8; ++i) {
        const std::uint64_t bits = (word >> 8 * i & 0xff) * kEach & 0x8040201008040201;
        std::uint64_t eight;
        __builtin_memcpy(&eight, counts + 8 * i, 8);
        eight += (bits + 0x7f * kEach) >> 7 & kEach;
        __builtin_memcpy(counts + 8 * i, &eight, 8);
    }
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

// kTilePixels x kTileWidth sums of weights [row][kTileWidth] · values, onto `current` [pixel][64].
MPSL_INLINE void tile_float(const Slab& slab, const float* const* inputs, float* current) {
    const float* weights = (const float*)slab.weights;
    Float sum[kTilePixels][kTileVectors];
    for (int i = 0; i < kTilePixels; ++i)
        for (int k = 0; k < kTileVectors; ++k) sum[i][k] = ((const Float*)(current + i * 64))[k];
    for (int tap = 0; tap < slab.taps; ++tap) {
        const int begin = slab.tap_offsets[tap], end = begin + slab.channels;
        for (std::ptrdiff_t c = begin; c < end; ++c, weights += kTileWidth) {
            Float weight[kTileVectors];
            for (int k = 0; k < kTileVectors; ++k) weight[k] = ((const Float*)weights)[k];
#pragma GCC unroll 6
            for (int i = 0; i < kTilePixels; ++i) {
                const Float value = splat(inputs[i][c]);
                for (int k = 0; k < kTileVectors; ++k)
                    sum[i][k] = multiply_add(weight[k], value, sum[i][k]);
            }
        }
    }
    for (int i = 0; i < kTilePixels; ++i)
        for (int k = 0; k < kTileVectors; ++k) ((Float*)(current + i * 64))[k] = sum[i][k];
}

#if MPSL_INT8_TILES
// Sums of whole numbers, four channels in one go. Without an instruction that does it all, pairs
// are summed as int16: so many of them that no sum leaves its range, see `channels_of_slab`.
#if defined(__AVX512VNNI__)
typedef Int FourSums;
MPSL_INLINE void add_fours(FourSums& sum, std::int32_t counts, Int weights) {
    sum = (Int)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(counts), (__m512i)weights);
}
MPSL_INLINE Int whole(FourSums sum) { return sum; }
#elif MPSL_VECTOR_BYTES == 64
typedef Short FourSums;
MPSL_INLINE void add_fours(FourSums& sum, std::int32_t counts, Int weights) {
    sum += (Short)_mm512_maddubs_epi16(_mm512_set1_epi32(counts), (__m512i)weights);
}
MPSL_INLINE Int whole(FourSums sum) {
    return (Int)_mm512_madd_epi16((__m512i)sum, _mm512_set1_epi16(1));
}
#elif MPSL_VECTOR_BYTES == 32
typedef Short FourSums;
MPSL_INLINE void add_fours(FourSums& sum, std::int32_t counts, Int weights) {
    sum += (Short)_mm256_maddubs_epi16(_mm256_set1_epi32(counts), (__m256i)weights);
}
MPSL_INLINE Int whole(FourSums sum) {
    return (Int)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1));
}
#elif defined(__ARM_FEATURE_DOTPROD)
typedef Int FourSums;
MPSL_INLINE void add_fours(FourSums& sum, std::int32_t counts, Int weights) {
    const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(counts));
    sum = (Int)vdotq_s32((int32x4_t)sum, (int8x16_t)weights, values);
}
MPSL_INLINE Int whole(FourSums sum) { return sum; }
#endif

// Channels whose sums `FourSums` holds: an int16 takes pairs of products up to `largest` · 127.
MPSL_INLINE int channels_of_slab(int largest) {
    const int pairs = 32767 / (2 * 127 * largest);
    return sizeof(FourSums{}[0]) == 4 || 4 * pairs > kInt8TileChannels ? kInt8TileChannels
                                                                       : 4 * pairs;
}

MPSL_INLINE void tile_int8(const Slab& slab, const std::uint8_t* const* inputs,
                           std::int32_t* current) {
    for (int first = 0; first < 64; first += kTileWidth) {
        const std::int8_t* row = (const std::int8_t*)slab.weights + first * 4;
        FourSums sum[kTilePixels][kTileVectors];
        for (int i = 0; i < kTilePixels; ++i)
            for (int k = 0; k < kTileVectors; ++k) sum[i][k] = FourSums{};
        for (int tap = 0; tap < slab.taps; ++tap) {
            const int begin = slab.tap_offsets[tap], end = begin + slab.channels;
            for (std::ptrdiff_t c = begin; c < end; c += 4, row += 256) {
                Int weight[kTileVectors];
                for (int k = 0; k < kTileVectors; ++k) weight[k] = ((const Int*)row)[k];
#pragma GCC unroll 6
                for (int i = 0; i < kTilePixels; ++i) {
                    std::int32_t counts;
                    __builtin_memcpy(&counts, inputs[i] + c, 4);
                    for (int k = 0; k < kTileVectors; ++k) add_fours(sum[i][k], counts, weight[k]);
                }
            }
        }
        for (int i = 0; i < kTilePixels; ++i) {
            Int* const to = (Int*)(current + first + i * 64);
            for (int k = 0; k < kTileVectors; ++k) to[k] += whole(sum[i][k]);
        }
    }
}
#endif

// kTilePixels outputs; `offsets`: of their inputs.
__attribute__((noinline)) void tile(const TileJob& job, const Slab& slab, void* current,
                                    const std::ptrdiff_t* offsets) {
    if (job.counts) {
#if MPSL_INT8_TILES
        const std::uint8_t* inputs[kTilePixels];
        for (int i = 0; i < kTilePixels; ++i)
            inputs[i] = job.counts + slab.first_channel + offsets[i];
        tile_int8(slab, inputs, (std::int32_t*)current);
#endif
        return;
    }
    const float* inputs[kTilePixels];
    for (int i = 0; i < kTilePixels; ++i) inputs[i] = job.values + slab.first_channel + offsets[i];
    tile_float(slab, inputs, (float*)current + slab.output);
}

// Tiles go on from one row of the map into the next. The last one is computed whole, beside the map.
void tiles_of_slab(const TileJob& job, const Slab& slab, NextSlab& next) {
    std::ptrdiff_t offsets[kTilePixels];
    int count = 0;
    std::size_t pixel = 0;
    for (int y = 0; y < job.output_rows; ++y)
        for (int x = 0; x < job.output_columns; ++x) {
            offsets[count++] =
                std::ptrdiff_t(y) * job.row_step + std::ptrdiff_t(x) * job.pixel_step;
            if (count < kTilePixels) continue;
            next.fetch();
            tile(job, slab, (Float*)job.current + pixel * (64 / kLanes), offsets);
            pixel += kTilePixels;
            count = 0;
        }
    if (!count) return;
    for (int i = count; i < kTilePixels; ++i) offsets[i] = offsets[count - 1];
    Float aside[kTilePixels * 64 / kLanes];
    Float* const current = (Float*)job.current + pixel * (64 / kLanes);
    const int vectors = count * 64 / kLanes;
    for (int k = 0; k < kTilePixels * 64 / kLanes; ++k)
        aside[k] = k < vectors ? current[k] : Float{};
    tile(job, slab, aside, offsets);
    for (int k = 0; k < vectors; ++k) current[k] = aside[k];
}

// A slab of float32 rows [rows][64], kTileWidth outputs at a time.
void float_tiles_of_slab(const TileJob& job, Slab slab, NextSlab& next) {
    if (kTileWidth == 64) return tiles_of_slab(job, slab, next);
    const float* const rows = (const float*)slab.weights;
    Float copy[kFloatTileChannels * kTileVectors];
    slab.weights = copy;
    for (; slab.output < 64; slab.output += kTileWidth) {
        const Float* from = (const Float*)(rows + slab.output);
        for (int i = 0; i < slab.taps * slab.channels; ++i, from += 64 / kLanes)
            for (int k = 0; k < kTileVectors; ++k) copy[i * kTileVectors + k] = from[k];
        tiles_of_slab(job, slab, next);
    }
}

void tiles(const TileJob& job) {
#if MPSL_INT8_TILES
    const int most = job.counts ? channels_of_slab(job.largest) : kFloatTileChannels;
#else
    const int most = kFloatTileChannels;
#endif
    const std::size_t row_bytes = job.counts ? 64 : 64 * sizeof(float);
    const char* const weights = (const char*)job.weights;
    const char* const end = weights + std::size_t(job.taps) * job.channels * row_bytes;
    const std::size_t tiles = (std::size_t(job.output_rows) * job.output_columns / kTilePixels + 1) *
                              (job.counts ? 1 : 64 / kTileWidth);
    const bool is_foreseen = !job.counts && kTileWidth == 64;
    const int at_once = most / job.channels > 1 ? most / job.channels : 1;  // taps
    for (int tap = 0; tap < job.taps; tap += at_once)
        for (int first = 0; first < job.channels; first += most) {
            const int taps = job.taps - tap, channels = job.channels - first;
            Slab slab{job.tap_offsets + tap, taps < at_once ? taps : at_once,
                      channels < most ? channels : most, first,
                      weights + (std::size_t(tap) * job.channels + first) * row_bytes, 0};
            const std::size_t bytes = std::size_t(slab.taps) * slab.channels * row_bytes;
            const char* const behind = (const char*)slab.weights + bytes;
            const std::size_t left = std::size_t(end - behind);
            NextSlab next{behind, behind + (left < bytes ? left : bytes), is_foreseen ? 0 : bytes / tiles + 64};
            if (job.counts) tiles_of_slab(job, slab, next);
            else float_tiles_of_slab(job, slab, next);
        }
}
