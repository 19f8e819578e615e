// From a signal to the current of a population, block by block.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.hpp"
#include "geometry.hpp"
#include "kernels.hpp"
#include "signal.hpp"

namespace mpsl {

class Connection {
public:
    explicit Connection(BlockLayout layout) : layout(layout), bias(layout.blocks * layout.width) {}
    virtual ~Connection() = default;

    // Reads the source, once a step; returns its synaptic operations.
    virtual std::uint64_t prepare() = 0;
    // Adds to `current`: the `blocks_at_once` blocks from `block` on, [block][pixel][width].
    virtual void accumulate(int block, float* current) const = 0;
    virtual int blocks_at_once() const { return 1; }
    virtual std::size_t bytes() const = 0;

    const BlockLayout layout;
    Buffer<float> bias;  // [block][width]
};

// `pooled`: the source has a 2x2 pool before the weights, whose factor is folded into them.
struct Source {
    Signal* signal;
    bool pooled;
    float scale;
};

// weight [Co, Ci/groups, kh, kw], bias [Co].
std::unique_ptr<Connection> make_convolution(const Kernels& kernels, Source source,
                                             const ConvolutionShape& shape, const float* weight,
                                             const float* bias);

// weight [out, in], `in` in the order channel·pixels + pixel, bias [out].
std::unique_ptr<Connection> make_dense(const Kernels& kernels, Source source, Extent seen, int out,
                                       const float* weight, const float* bias);

// The signal itself is the current.
std::unique_ptr<Connection> make_identity(Source source);

}  // namespace mpsl
