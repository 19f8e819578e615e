#include "convolution.hpp"

#include <optional>
#include <utility>

#include "crossover.hpp"
#include "dense_input.hpp"
#include "pieces.hpp"
#include "spike_lists.hpp"

namespace mpsl {

Convolution::Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                         const float* bias_values, int narrowest, Watch& watch)
    : Connection(source, BlockLayout(shape.output, narrowest), bias_values, watch),
      kernels_(kernels), shape_(shape) {
    const int per_tap = shape.output.channels / shape.groups;
    const Buffer<std::uint32_t> rows = count_reached(shape.rows);
    const Buffer<std::uint32_t> columns = count_reached(shape.columns);
    Buffer<std::uint32_t> fanout(shape.input.pixels());
    for (int y = 0; y < shape.input.rows; ++y)
        for (int x = 0; x < shape.input.columns; ++x)
            fanout[std::size_t(y) * shape.input.columns + x] = narrow<std::uint32_t>(
                product(rows[y], columns[x], per_tap), "fan-out of a spike");
    fanout_ = std::make_shared<const Buffer<std::uint32_t>>(std::move(fanout));
}

FloatConvolution::FloatConvolution(const Kernels& kernels, Source source,
                                   const ConvolutionShape& shape, Weights weight,
                                   const float* bias_values, Watch& watch)
    : Convolution(kernels, source, shape, bias_values, kFloatNarrowest, watch),
      packed_(pack(weight)) {}

std::shared_ptr<const FloatConvolution::Packed> FloatConvolution::pack(Weights weight) const {
    Packed packed;
    packed.ranges.reserve(layout.blocks);
    packed.weights.reserve(layout.blocks);
    for (int block = 0; block < layout.blocks; ++block) {
        const ChannelRange outputs{block * layout.width, layout.width};
        packed.ranges.push_back(channels_of_block(shape_, outputs));
        packed.weights.push_back(pack_block<float>(
            shape_, outputs, packed.ranges[block], *watch_,
            [&](std::size_t i) { return weight.at(i) * source_.scale; }));
    }
    return std::make_shared<const Packed>(std::move(packed));
}

namespace {

// Fixed, measured on the layers of A and B32, the same for AVX2 and AVX-512: the dense loops round
// other sums than lists, and a step must not be rounded as a clock decides. A row that is added once
// for one spike costs nearly what the dense loops take for it; pooled spikes seldom leave rows out.
constexpr double kFloatCrossover = 0.85, kPooledFloatCrossover = 0.36;

// Spikes, perhaps pooled 2x2: for each tap a slab of weights stays in the first-level cache while
// all pixels pass by.
class SlabConvolution : public FloatConvolution {
public:
    SlabConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                    Weights weight, const float* bias_values, Watch& watch)
        : FloatConvolution(kernels, source, shape, weight, bias_values, watch),
          lists_(kernels, source.pooled, shape.input, kSlabChannels,
                 layout.width * int(sizeof(float))) {
        if (layout.width != 64) return;
        dense_.emplace(kernels, source, shape, true);
        const double forced = forced_crossover();
        if (forced >= 0) crossover_ = forced;
        else crossover_ = source.pooled ? kPooledFloatCrossover : kFloatCrossover;
    }

    std::uint64_t prepare() override {
        const Signal& spikes = *source_.signal;
        is_dense_ = dense_ && spikes.density() > crossover_;
        return is_dense_ ? dense_->build(spikes, fanout()) : lists_.build(spikes, fanout());
    }

    void accumulate(int block, RowRange rows, Sum* current) const override {
        if (is_dense_)
            return dense_->accumulate(weights(block), shape_.input.channels, rows, current,
                                      *watch_);
        GatherJob job{};
        job.offsets = lists_.offsets();
        job.current = &current->real;
        job.width = layout.width;
        double spent = 0;
        for (int chunk = 0; chunk < lists_.chunks; ++chunk) {
            job.pixels = lists_.pixels(chunk);
            for (int tap = 0; tap < shape_.taps(); ++tap) {
                job.slab = weights(block) +
                           (std::size_t(tap) * shape_.input.channels + chunk * kSlabChannels) *
                               layout.width;
                gather(job, shape_.window(tap), spent);
            }
        }
    }

    std::size_t bytes() const override {
        return shared_bytes() + lists_.bytes() + (dense_ ? dense_->bytes() : 0);
    }
    double crossover() const override { return dense_ ? crossover_ : 1; }

private:
    std::unique_ptr<Connection> clone() const override {
        return std::make_unique<SlabConvolution>(*this);
    }

    // One tap, whose window is worked off in pieces.
    void gather(GatherJob& job, const TapWindow& window, double& spent) const {
        const Window map{window.row_end - window.row_begin,
                         window.column_end - window.column_begin};
        const double pixel = double(kSlabChannels) * layout.width;
        for_each_piece(map, pixel, spent, *watch_, [&](Piece piece) {
            job.window = window;
            job.window.row_begin = window.row_begin + piece.row;
            job.window.row_end = job.window.row_begin + piece.rows;
            job.window.column_begin = window.column_begin + piece.column;
            job.window.column_end = job.window.column_begin + piece.columns;
            kernels_.gather(job);
        });
    }

    SpikeLists lists_;
    std::optional<DenseInput> dense_;  // nothing where there are no dense loops
    double crossover_ = 1;
    bool is_dense_ = false;  // in this step
};

}  // namespace

std::unique_ptr<Connection> make_convolution(const Kernels& kernels, Source source,
                                             const ConvolutionShape& shape, Weights weight,
                                             const float* bias, Workers& workers) {
    if (weight.is_int8() && source.signal->is_bits() && shape.groups == 1)
        return make_int8_convolution(kernels, source, shape, weight, bias, workers);
    Watch& watch = workers.watch;
    if (!source.signal->is_bits() || shape.groups != 1)
        return make_event_convolution(kernels, source, shape, weight, bias, watch);
    return std::make_unique<SlabConvolution>(kernels, source, shape, weight, bias, watch);
}

}  // namespace mpsl
