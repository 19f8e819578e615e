// Weights in the order in which the loops of a convolution read them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "buffer.hpp"
#include "geometry.hpp"
#include "watch.hpp"

namespace mpsl {

struct ChannelRange {
    int first, count;
};

// Of the input channels that one block of outputs sees: all, or those of its groups.
inline ChannelRange channels_of_block(const ConvolutionShape& shape, ChannelRange outputs) {
    const int in_group = shape.input.channels / shape.groups;
    const int out_group = shape.output.channels / shape.groups;
    const int last = std::min(outputs.first + outputs.count, shape.output.channels) - 1;
    const int first_group = outputs.first / out_group, last_group = last / out_group;
    return {first_group * in_group, (last_group - first_group + 1) * in_group};
}

// Weights [tap][channel − first][outputs.count] of one block; zero where a group does not reach
// and beyond the last output. `weight` gives the value at an index of [Co, Ci/groups, kh, kw].
template <class T, class Weight>
Buffer<T> pack_block(const ConvolutionShape& shape, ChannelRange outputs, ChannelRange inputs,
                     Watch& watch, Weight weight) {
    const int in_group = shape.input.channels / shape.groups;
    const int out_group = shape.output.channels / shape.groups;
    const std::size_t taps = shape.taps(), tap_size = product(inputs.count, outputs.count);
    Buffer<T> packed(product(taps, tap_size));
    const int end = std::min(outputs.first + outputs.count, shape.output.channels);
    for (int out = outputs.first; out < end; ++out) {
        watch.spend(taps * in_group);
        for (int i = 0; i < in_group; ++i) {
            const std::size_t kernel = (std::size_t(out) * in_group + i) * taps;
            const int row = out / out_group * in_group + i - inputs.first;
            T* const to = packed.data() + std::size_t(row) * outputs.count + out - outputs.first;
            for (std::size_t tap = 0; tap < taps; ++tap) to[tap * tap_size] = weight(kernel + tap);
        }
    }
    return packed;
}

template <class T>
std::size_t bytes_of(const std::vector<Buffer<T>>& buffers) {
    std::size_t bytes = 0;
    for (const Buffer<T>& buffer : buffers) bytes += buffer.bytes();
    return bytes;
}

}  // namespace mpsl
