#include "geometry.hpp"

#include <stdexcept>
#include <string>

namespace mpsl {

void refuse_size(const char* what) {
    throw std::length_error(std::string(what) + " is too large to be computed with");
}

Axis make_axis(std::int64_t input, std::int64_t taps, std::int64_t stride, std::int64_t before,
               std::int64_t after, std::int64_t dilation) {
    if (taps < 1 || stride < 1 || before < 0 || after < 0 || dilation < 1)
        throw std::invalid_argument("kernel, stride, padding or dilation is out of range");
    for (const std::int64_t number : {input, taps, stride, before, after, dilation})
        if (number > kLargestAxis) refuse_size("kernel, stride, padding or dilation");
    const std::int64_t padded = input + before + after, extent = (taps - 1) * dilation + 1;
    if (padded > kLargestAxis) refuse_size("map with its padding");
    if (extent > padded) throw std::invalid_argument("kernel is larger than the input");
    const std::int64_t output = (padded - extent) / stride + 1;
    Axis axis;
    axis.input = narrow<int>(input);
    axis.output = narrow<int>(output);
    axis.taps = narrow<int>(taps);
    axis.stride = output == 1 ? 1 : narrow<int>(stride);  // of one output it says nothing
    axis.before = narrow<int>(before);
    axis.dilation = taps == 1 ? 1 : narrow<int>(dilation);
    return axis;
}

// A tap reaches its outputs from every stride-th position: each run is marked where it begins and
// where it has ended, so that the cost is that of the map, not of all pairs.
Buffer<std::uint32_t> count_reached(const Axis& axis) {
    Buffer<std::uint32_t> counts(axis.input);
    const std::size_t step = axis.stride;
    for (int tap = 0; tap < axis.taps; ++tap) {
        const std::int64_t begin = axis.output_begin(tap), end = axis.output_end(tap);
        if (begin >= end) continue;
        const std::int64_t offset = axis.input_offset(tap);
        ++counts[std::size_t(begin * axis.stride + offset)];
        const std::int64_t ended = end * axis.stride + offset;
        if (ended < axis.input) --counts[std::size_t(ended)];
    }
    for (std::size_t position = step; position < counts.size(); ++position)
        counts[position] += counts[position - step];
    return counts;
}

Reach::Reach(const Axis& axis) : begin(sum(axis.input, 1)) {
    const auto position = [&axis](int output, int tap) {
        return std::size_t(output * axis.stride + axis.input_offset(tap));
    };
    const Buffer<std::uint32_t> counts = count_reached(axis);
    std::size_t pairs = 0;
    for (std::size_t at = 0; at < counts.size(); ++at) {
        begin[at] = narrow<std::uint32_t>(pairs, "reach of a convolution");
        pairs += counts[at];
    }
    begin[counts.size()] = narrow<std::uint32_t>(pairs, "reach of a convolution");
    targets = Buffer<ReachTarget>(pairs);
    for (int tap = 0; tap < axis.taps; ++tap)
        for (int o = axis.output_begin(tap); o < axis.output_end(tap); ++o)
            targets[begin[position(o, tap)]++] = {tap, o};
    // Filling has moved each beginning to its end.
    for (std::size_t at = counts.size(); at > 0; --at) begin[at] = begin[at - 1];
    begin[0] = 0;
}

}  // namespace mpsl
