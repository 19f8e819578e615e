// What all convolutions have in common, and which ones there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "connection.hpp"
#include "packing.hpp"

namespace mpsl {

class Convolution : public Connection {
public:
    Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                const float* bias_values, int narrowest, Watch& watch);

    std::size_t shared_bytes() const override {
        return Connection::shared_bytes() + fanout_->bytes();
    }

protected:
    // Enough rows to be worth a call, few enough for the first-level cache.
    int strip_rows() const { return int(units(kStripPixels, layout.extent.columns)); }
    // [input pixel]: weights that a spike there reaches.
    const std::uint32_t* fanout() const { return fanout_->data(); }

    const Kernels& kernels_;
    const ConvolutionShape shape_;

private:
    static constexpr int kStripPixels = 16;

    std::shared_ptr<const Buffer<std::uint32_t>> fanout_;
};

class FloatConvolution : public Convolution {
public:
    FloatConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                     Weights weight, const float* bias_values, Watch& watch);

    std::size_t replaceable() const override {
        return product(shape_.output.channels, shape_.input.channels / shape_.groups,
                       shape_.taps());
    }
    void replace(Weights weight) override { packed_ = pack(weight); }
    std::size_t shared_bytes() const override {
        return Convolution::shared_bytes() + packed_->bytes();
    }

protected:
    const float* weights(int block) const { return packed_->weights[block].data(); }
    ChannelRange range(int block) const { return packed_->ranges[block]; }

private:
    struct Packed {
        std::vector<ChannelRange> ranges;    // [block], of inputs
        std::vector<Buffer<float>> weights;  // [block] -> [tap][channel][width]

        std::size_t bytes() const {
            return bytes_of(weights) + ranges.capacity() * sizeof(ChannelRange);
        }
    };

    std::shared_ptr<const Packed> pack(Weights weight) const;

    std::shared_ptr<const Packed> packed_;
};

// Event by event, output by output: any input, any grouping.
std::unique_ptr<Connection> make_event_convolution(const Kernels& kernels, Source source,
                                                   const ConvolutionShape& shape, Weights weight,
                                                   const float* bias, Watch& watch);

// int8 weights, from spikes, perhaps pooled 2x2. `workers`: as for make_convolution.
std::unique_ptr<Connection> make_int8_convolution(const Kernels& kernels, Source source,
                                                  const ConvolutionShape& shape, Weights weight,
                                                  const float* bias, Workers& workers);

}  // namespace mpsl
