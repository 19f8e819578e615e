// A step's spikes as a padded image of counts, for the dense loops.
#pragma once

#include <algorithm>

#include "buffer.hpp"
#include "connection.hpp"
#include "geometry.hpp"
#include "kernels.hpp"
#include "pieces.hpp"

namespace mpsl {

class DenseInput {
public:
    // `as_float`: the loops want float32 values instead of uint8 counts.
    DenseInput(const Kernels& kernels, Source source, const ConvolutionShape& shape, bool as_float)
        : kernels_(kernels), pooled_(source.pooled), shape_(shape),
          stride_(narrow<int>(product(source.signal->words, 64))), columns_(padded(shape.columns)),
          pixel_step_(narrow<int>(product(shape.columns.stride, stride_), "step of a tile")),
          row_step_(narrow<int>(product(shape.rows.stride, columns_, stride_), "step of a tile")),
          tap_offsets_(shape.taps()), counts_(size()), values_(as_float ? size() : 0) {
        int* offset = tap_offsets_.data();
        for (int i = 0; i < shape.rows.taps; ++i)
            for (int j = 0; j < shape.columns.taps; ++j) {
                const std::size_t row = product(i, shape.rows.dilation, columns_);
                const std::size_t pixel = sum(row, product(j, shape.columns.dilation));
                *offset++ = narrow<int>(product(pixel, stride_), "offset of a tap");
            }
    }

    // Reads `signal`, before the pool; returns Σ spikes · fanout[pixel].
    std::uint64_t build(const Signal& signal, const std::uint32_t* fanout) {
        CountJob job{};
        job.spikes = signal.bits.data();
        job.words = signal.words;
        job.rows = shape_.input.rows;
        job.columns = shape_.input.columns;
        job.source_columns = signal.extent.columns;
        job.padded_columns = columns_;
        job.top = shape_.rows.before;
        job.left = shape_.columns.before;
        job.pooled = pooled_;
        job.fanout = fanout;
        job.counts = counts_.data();
        job.values = values_.empty() ? nullptr : values_.data();
        kernels_.count_spikes(job);
        return job.synops;
    }

    // Adds up these rows of one block of outputs from `weights`, see TileJob; may leave early.
    void accumulate(const void* weights, int channels, RowRange rows, Sum* current,
                    Watch& watch) const {
        TileJob job{};
        job.weights = weights;
        job.channels = channels;
        job.taps = shape_.taps();
        job.largest = pooled_ ? 4 : 1;
        job.tap_offsets = tap_offsets_.data();
        job.pixel_step = pixel_step_;
        job.row_step = row_step_;
        const double pixel = 64.0 * channels * job.taps;
        const Window map{rows.count(), shape_.output.columns};
        double spent = 0;
        for_each_piece(map, pixel, spent, watch, [&](Piece piece) {
            const std::size_t from = std::size_t(rows.begin + piece.row) * row_step_ +
                                     std::size_t(piece.column) * pixel_step_;
            job.values = values_.empty() ? nullptr : values_.data() + from;
            job.counts = values_.empty() ? counts_.data() + from : nullptr;
            job.output_rows = piece.rows;
            job.output_columns = piece.columns;
            job.current =
                current + (std::size_t(piece.row) * shape_.output.columns + piece.column) * 64;
            kernels_.tiles(job);
        });
    }

    std::size_t bytes() const { return tap_offsets_.bytes() + counts_.bytes() + values_.bytes(); }

private:
    // The whole input, and all that any tap of any output sees.
    static int padded(const Axis& axis) {
        const int seen = (axis.output - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
        return std::max(seen, axis.before + axis.input);
    }
    std::size_t size() const { return product(padded(shape_.rows), columns_, stride_); }

    const Kernels& kernels_;
    const bool pooled_;
    const ConvolutionShape shape_;
    const int stride_;   // channels of a pixel in memory
    const int columns_;
    const int pixel_step_, row_step_;  // from an output to the next
    Buffer<int> tap_offsets_;
    Buffer<std::uint8_t> counts_;  // [padded row][padded column][stride]
    Buffer<float> values_;         // the same, or empty
};

}  // namespace mpsl
