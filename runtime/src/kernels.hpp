// The inner loops, built once for each instruction set, and what they are handed.
//
// Only plain structs and function pointers cross this line. A function that is compiled for AVX-512
// and has external linkage could be the one copy that the linker keeps for every caller, so the
// files that implement this include nothing that defines such functions (no std:: templates).
#pragma once

#include <cstddef>
#include <cstdint>

namespace mpsl {

// Channels of a float32 slab: 128 rows of 256 bytes stay in a first-level cache of 32 KiB, and
// their byte offsets fit 16 bits.
constexpr int kSlabChannels = 128;

// Channels of one list of int8 rows.
constexpr int kRowChannels = 512;

// Room that list builders may write beyond the last entry.
constexpr std::size_t kListSlack = 64;

// ---- spikes -> lists ----------------------------------------------------------------------------

// The active channels of one pixel and one chunk, each as `step` · its number in the chunk.
// A 2x2 pool turns into bit planes: channels that count four, then two, then one.
struct PixelSpikes {
    std::uint32_t begin;                   // into `offsets`
    std::uint16_t fours_end, twos_end, end;  // relative to begin
};

struct ListJob {
    const std::uint64_t* spikes;  // [source pixel][words]
    int words, first_word, word_count;
    int rows, columns, source_columns;  // rows, columns: as the convolution sees them
    bool pooled;                        // 2x2, the source having twice the rows and columns
    int step;
    const std::uint32_t* fanout;  // [pixel] weights that one spike reaches
    std::uint16_t* offsets;
    std::uint32_t first_offset;
    PixelSpikes* pixels;  // [rows * columns]
    std::uint64_t synops;  // result
    std::uint32_t end_offset;  // result
};

// ---- lists -> current ---------------------------------------------------------------------------

struct TapWindow {
    int row_begin, row_end, column_begin, column_end;  // outputs
    int row_offset, column_offset;                     // input = output * stride + offset
    int row_stride, column_stride;
    int input_columns, output_columns;
};

// One tap of one chunk of one block, over all pixels that it connects.
struct GatherJob {
    const float* slab;  // [chunk channel][width]
    const std::uint16_t* offsets;
    const PixelSpikes* pixels;  // [input pixel]
    float* current;             // [output pixel][width]
    int width;
    TapWindow window;
};

// Channels of the narrowest block: 16 float32, or 32 int16, fill the widest register.
constexpr int kFloatNarrowest = 16, kInt8Narrowest = 32;

// Of int8 rows up to four blocks of 64 are summed at once: eight of the widest registers.
constexpr int kRowBlocks = 4;

// Up to so many weights of at most 127 fit an int16 sum.
constexpr int kInt16Spikes = 258;

// One axis of a convolution: output o sees input o·stride − before + tap·dilation.
struct AxisTaps {
    int taps, stride, before, dilation, input;
};

// Tap after tap, each over all outputs of the job.
struct Int8GatherJob {
    const std::int8_t* weights;  // [tap][channel][width], see Kernels::pair_rows
    int channels;
    const std::uint16_t* lists;  // channels in their chunk
    const PixelSpikes* pixels;   // [chunk of kRowChannels][input pixel]
    int chunks;
    AxisTaps rows, columns;
    int row_begin, row_end, column_begin, column_end;  // all columns, or those of one row
    std::int32_t* current;   // [output pixel from there on][width], above width 64 in blocks of 64 …
    std::size_t block_size;  // … this far apart
    int width;               // 32, 64, 128 or 256
};

// ---- everything -> current, where so much fires that lists do not pay --------------------------

// Counts the spikes of each channel and pixel, 0 … 4 under a 2x2 pool, into an image with borders.
struct CountJob {
    const std::uint64_t* spikes;  // [source pixel][words]
    int words, rows, columns, source_columns;  // as in ListJob
    int padded_columns, top, left;             // of the image
    bool pooled;
    const std::uint32_t* fanout;  // [pixel]
    std::uint8_t* counts;  // [padded row][padded column][64 · words]
    float* values;         // the same, or null
    std::uint64_t synops;  // result
};

// One block of 64 outputs. Steps and offsets are in elements of the input image.
struct TileJob {
    const float* values;  // with `weights` float32 [tap][channel][64], or
    const std::uint8_t* counts;  // with int8 [tap][channel / 4][64][4]
    const void* weights;
    void* current;  // [output pixel][64], float32 or int32
    int taps, channels;
    int largest;  // count
    const int* tap_offsets;
    int pixel_step, row_step, output_rows, output_columns;
};

// ---- events -> current --------------------------------------------------------------------------

// What one event adds to one output: value · the weights of a tap and a channel.
struct EventReach {
    std::int32_t tap, channel;
    float value;
};

struct EventJob {
    const EventReach* reached;   // of output 0, then of output 1, …
    const std::uint32_t* begin;  // [outputs + 1], into `reached`
    const float* weights;        // [tap][channel − first_channel][width]
    int first_channel, channel_count, width;
    std::size_t outputs;
    float* current;  // [output][width]
};

// ---- active rows -> current ---------------------------------------------------------------------

struct ActiveRow {
    std::uint32_t row;
    float value;
};

struct DenseJob {
    const ActiveRow* rows;
    std::size_t row_count;
    const float* weights;  // [in][padded_out], from the first column on
    std::size_t padded_out, columns;  // multiples of 16
    float* current;                   // [columns]
};

struct Int8DenseJob {
    const ActiveRow* rows;  // values: whole numbers up to 4
    std::size_t row_count;
    const std::int8_t* weights;  // [in][padded_out], from the first column on
    std::size_t padded_out, columns;  // multiples of 32
    std::int32_t* current;            // [columns]
};

// ---- current -> spikes --------------------------------------------------------------------------

// One block of a population, all arrays [pixel][width] but `bias` [width].
struct FireJob {
    void* current;  // float32, or int32 multiples of `quantum` where that is not 0
    float quantum;
    bool clear_current;
    const float* bias;
    float* state;      // V
    float* membrane;   // U, or null
    std::uint64_t* spikes;  // one word a pixel, `spike_stride` words apart
    std::size_t spike_stride, pixels;
    int width;
    // What a spike does to V; Undecayed (a subtraction too) and Lost do it in the step after it.
    enum Reset { Subtract, Value, Undecayed, Lost } reset;

    // Used by fire_uniform.
    float decay, threshold, drop, reset_value;

    // Used by fire_each.
    enum Kind { Spiking, Integrating, Threshold } kind;
    const float *decays, *thresholds, *drops, *reset_values;
    float* counts;                                   // how often it fired; null: at most once
    const float *gains, *leaks;                      // null without an input map
    const float *synaptic_decays, *synaptic_gains;  // null without a synapse
    float* synapse;                                  // J
};

struct Kernels {
    const char* name;
    void (*build_lists)(ListJob&);
    void (*gather)(const GatherJob&);
    void (*gather_events)(const EventJob&);
    // Brings plain rows [count][width] into the form in which gather_int8 reads them.
    void (*pair_rows)(std::int8_t* rows, std::size_t count, int width);
    void (*gather_int8)(const Int8GatherJob&);
    void (*dense)(const DenseJob&);
    void (*dense_int8)(const Int8DenseJob&);
    void (*count_spikes)(CountJob&);
    void (*tiles)(const TileJob&);
    bool has_int8_tiles;
    void (*fire_uniform)(const FireJob&);
    void (*fire_each)(const FireJob&);
    // Writes the indices of values that are not zero (NaN is not zero); returns their number.
    std::size_t (*find_nonzero)(const float* values, std::size_t size, std::uint32_t* index);
};

extern const Kernels kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_v3, kernels_v4, kernels_vnni;
#elif defined(__aarch64__)
extern const Kernels kernels_dotprod;
#endif

// The best kernels that this processor runs, or those that the environment variable MPSL_ISA
// names. Throws std::invalid_argument when it names others.
const Kernels& select_kernels();

}  // namespace mpsl
