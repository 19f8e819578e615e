// A step's spikes as a padded image of counts, for the dense loops.
#pragma once

#include <algorithm>
#include <vector>

#include "buffer.hpp"
#include "connection.hpp"
#include "geometry.hpp"
#include "kernels.hpp"

namespace mpsl {

class DenseInput {
public:
    // `as_float`: the loops want float32 values instead of uint8 counts.
    DenseInput(const Kernels& kernels, Source source, const ConvolutionShape& shape, bool as_float)
        : kernels_(kernels), source_(source), shape_(shape),
          stride_(source.signal->words * 64), columns_(padded(shape.columns)),
          counts_(pixels() * stride_), values_(as_float ? pixels() * stride_ : 0) {
        for (int i = 0; i < shape.rows.taps; ++i)
            for (int j = 0; j < shape.columns.taps; ++j)
                tap_offsets_.push_back(
                    (i * shape.rows.dilation * columns_ + j * shape.columns.dilation) * stride_);
    }

    // The share of the source's neurons that fire.
    double density() const {
        const Buffer<std::uint64_t>& bits = source_.signal->bits;
        std::size_t spikes = 0;
        for (std::size_t i = 0; i < bits.size(); ++i) spikes += __builtin_popcountll(bits[i]);
        return double(spikes) / double(source_.signal->extent.size());
    }

    // Returns Σ spikes · fanout[pixel].
    std::uint64_t build(const std::uint32_t* fanout) {
        CountJob job{};
        job.spikes = source_.signal->bits.data();
        job.words = source_.signal->words;
        job.rows = shape_.input.rows;
        job.columns = shape_.input.columns;
        job.source_columns = source_.signal->extent.columns;
        job.padded_columns = columns_;
        job.top = shape_.rows.before;
        job.left = shape_.columns.before;
        job.pooled = source_.pooled;
        job.fanout = fanout;
        job.counts = counts_.data();
        job.values = values_.empty() ? nullptr : values_.data();
        kernels_.count_spikes(job);
        return job.synops;
    }

    // All but weights, current and the number of channels.
    TileJob job() const {
        TileJob job{};
        job.values = values_.empty() ? nullptr : values_.data();
        job.counts = values_.empty() ? counts_.data() : nullptr;
        job.taps = shape_.taps();
        job.tap_offsets = tap_offsets_.data();
        job.pixel_step = shape_.columns.stride * stride_;
        job.row_step = shape_.rows.stride * columns_ * stride_;
        job.output_rows = shape_.output.rows;
        job.output_columns = shape_.output.columns;
        return job;
    }

    std::size_t bytes() const { return counts_.bytes() + values_.bytes(); }

private:
    // The whole input, and all that any tap of any output sees.
    static int padded(const Axis& axis) {
        const int seen = (axis.output - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
        return std::max(seen, axis.before + axis.input);
    }
    // The last tile may read pixels beyond its row.
    std::size_t pixels() const {
        return std::size_t(padded(shape_.rows)) * columns_ + 8 * shape_.columns.stride;
    }

    const Kernels& kernels_;
    const Source source_;
    const ConvolutionShape shape_;
    const int stride_;   // channels of a pixel in memory
    const int columns_;
    std::vector<int> tap_offsets_;
    Buffer<std::uint8_t> counts_;  // [padded row][padded column][stride]
    Buffer<float> values_;         // the same, or empty
};

}  // namespace mpsl
