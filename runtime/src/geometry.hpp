// Shapes, and which output each kernel tap of a convolution reaches.
#pragma once

#include <cstddef>
#include <cstdint>

#include "buffer.hpp"
#include "kernels.hpp"
#include "sizes.hpp"

namespace mpsl {

// A signal of one step: [channels][rows][columns]; a vector is [size][1][1]. At most
// kLargestSignal values.
struct Extent {
    int channels = 0, rows = 0, columns = 0;

    Extent() = default;
    Extent(std::int64_t channels, std::int64_t rows, std::int64_t columns)
        : channels(narrow<int>(channels)), rows(narrow<int>(rows)), columns(narrow<int>(columns)) {
        if (product(channels, rows, columns) > kLargestSignal) refuse_size("signal");
    }

    std::size_t pixels() const { return std::size_t(rows) * columns; }
    std::size_t size() const { return pixels() * channels; }
};

// Positions begin … end − 1 of a map's rows or columns; none where they are equal.
struct InputRange {
    int begin, end;
};

// One axis of a convolution or a pool: output o sees input o·stride − before + tap·dilation.
struct Axis {
    int input = 0, output = 0, taps = 0, stride = 0, before = 0, dilation = 0;

    int input_offset(int tap) const { return tap * dilation - before; }

    // First output, and one past the last, whose input for `tap` lies inside.
    int output_begin(int tap) const {
        const int offset = input_offset(tap);
        const int begin = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
        return begin < output ? begin : output;
    }
    int output_end(int tap) const {
        const int room = input - 1 - input_offset(tap);
        const int end = room < 0 ? 0 : room / stride + 1;
        return end < output ? end : output;
    }
    // What an output's window covers; without dilation.
    InputRange inputs(int output) const {
        const int first = output * stride - before, end = first + taps;
        const int begin = first > 0 ? (first < input ? first : input) : 0;
        return {begin, end < input ? (end > begin ? end : begin) : input};
    }
};

// The axis with as many outputs as fit. Throws std::invalid_argument where none does, or a number
// is out of range; no number that the axis computes with is beyond kLargestAxis.
Axis make_axis(std::int64_t input, std::int64_t taps, std::int64_t stride, std::int64_t before,
               std::int64_t after, std::int64_t dilation);

struct ConvolutionShape {
    Extent input, output;
    Axis rows, columns;
    int groups = 1;
    int taps() const { return rows.taps * columns.taps; }

    // The outputs that a tap connects, and where their inputs lie.
    TapWindow window(int tap) const {
        const int row_tap = tap / columns.taps, column_tap = tap % columns.taps;
        return {rows.output_begin(row_tap),       rows.output_end(row_tap),
                columns.output_begin(column_tap), columns.output_end(column_tap),
                rows.input_offset(row_tap),       columns.input_offset(column_tap),
                rows.stride,                      columns.stride,
                input.columns,                    output.columns};
    }
};

// For each position of an axis, how many taps reach an output from there.
Buffer<std::uint32_t> count_reached(const Axis& axis);

struct ReachTarget {
    std::int32_t tap, output;
};

// For each position of an axis the (tap, output) pairs that it reaches, taps in order.
struct Reach {
    explicit Reach(const Axis& axis);

    std::size_t bytes() const { return begin.bytes() + targets.bytes(); }

    Buffer<std::uint32_t> begin;  // [input + 1]
    Buffer<ReachTarget> targets;
};

// Rows begin … end − 1 of a map.
struct RowRange {
    int begin, end;
    int count() const { return end - begin; }
};

// Channels side by side in memory: [block][pixel][width], the last block filled up with channels
// that never fire. 64 channels of a block share one word of spikes; few channels take less.
struct BlockLayout {
    BlockLayout() = default;
    explicit BlockLayout(Extent of, int narrowest = kFloatNarrowest)
        : extent(of),
          width(of.channels <= 16 && narrowest <= 16 ? 16 : of.channels <= 32 ? 32 : 64),
          blocks(narrow<int>(units(of.channels, width))) {
        product(of.pixels(), width, blocks, sizeof(float));  // fits, and so do all below
    }

    std::size_t block_size() const { return extent.pixels() * width; }
    std::size_t row_size() const { return std::size_t(extent.columns) * width; }  // of a block
    std::size_t size() const { return block_size() * blocks; }
    std::size_t index(int channel, std::size_t pixel) const {
        return channel / width * block_size() + pixel * width + channel % width;
    }

    Extent extent;
    int width = 0, blocks = 0;
};

}  // namespace mpsl
