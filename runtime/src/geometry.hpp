// Shapes, and which output each kernel tap of a convolution reaches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace mpsl {

// A signal of one step: [channels][rows][columns]; a vector is [size][1][1].
struct Extent {
    int channels = 0, rows = 0, columns = 0;
    std::size_t pixels() const { return std::size_t(rows) * columns; }
    std::size_t size() const { return pixels() * channels; }
};

// One axis of a convolution: output o sees input o·stride − before + tap·dilation.
struct Axis {
    int input, output, taps, stride, before, dilation;

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
};

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

struct ReachTarget {
    std::int32_t tap, output;
};

// For each position of one axis the (tap, output) pairs that it reaches.
struct Reach {
    explicit Reach(const Axis& axis) : begin(axis.input + 1) {
        for (int position = 0; position < axis.input; ++position) {
            begin[position] = std::uint32_t(targets.size());
            for (int tap = 0; tap < axis.taps; ++tap) {
                const int distance = position - axis.input_offset(tap);
                if (distance < 0 || distance % axis.stride) continue;
                const int output = distance / axis.stride;
                if (output < axis.output) targets.push_back({tap, output});
            }
        }
        begin[axis.input] = std::uint32_t(targets.size());
    }
    std::uint32_t count(int position) const { return begin[position + 1] - begin[position]; }

    std::vector<std::uint32_t> begin;  // [input + 1]
    std::vector<ReachTarget> targets;
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
          blocks((of.channels + width - 1) / width) {}

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
