// From a signal to the current of a population, block by block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "buffer.hpp"
#include "geometry.hpp"
#include "kernels.hpp"
#include "signal.hpp"
#include "weights.hpp"
#include "workers.hpp"

namespace mpsl {

// One sum of weights, before the bias. Both zeros are all bits zero.
union Sum {
    float real;
    std::int32_t whole;
};

// `pooled`: the source has a 2x2 pool before the weights, whose factor is folded into them.
struct Source {
    Signal* signal;
    bool pooled;
    float scale;
};

class Connection {
public:
    // bias_values [channels], or null: none.
    Connection(Source source, BlockLayout layout, const float* bias_values, Watch& watch)
        : layout(layout), source_(source), watch_(&watch) {
        Buffer<float> bias(product(layout.blocks, layout.width));
        if (bias_values) std::copy_n(bias_values, layout.extent.channels, bias.data());
        bias_ = std::make_shared<const Buffer<float>>(std::move(bias));
    }
    virtual ~Connection() = default;
    Connection& operator=(const Connection&) = delete;

    // The same in another network, where `source` is what this one's source is here. Weights, and
    // all else that never changes, are shared.
    std::unique_ptr<Connection> fork(Signal& source, Watch& watch) const {
        std::unique_ptr<Connection> copy = clone();
        copy->source_.signal = &source;
        copy->watch_ = &watch;
        return copy;
    }
    const Signal& source() const { return *source_.signal; }

    // float32 weights that `replace` takes; 0: there are none, or they are int8.
    virtual std::size_t replaceable() const { return 0; }
    // Other weights in the order of the old ones, for this network alone: forks keep theirs. Throws
    // Stopped.
    virtual void replace(Weights) { throw std::logic_error("weights are not replaceable"); }
    // Reads the source, once a step; returns its synaptic operations.
    virtual std::uint64_t prepare() = 0;
    // Adds to `current` these rows of the `blocks_at_once` blocks from `block` on,
    // [block][pixel of the rows][width]; they have room there even beyond the last block. May leave
    // early where the watch says so.
    virtual void accumulate(int block, RowRange rows, Sum* current) const = 0;
    virtual int blocks_at_once() const { return 1; }
    // The number of rows to ask for at a time in this step, so that the sums are still in the
    // first-level cache afterwards; all rows are served too.
    virtual int rows_at_once() const { return layout.extent.rows; }
    // Of an int32 current; 0: the current is float32.
    virtual float quantum() const { return 0; }
    // A source of which more fires is read by dense loops; 1: none ever is.
    virtual double crossover() const { return 1; }
    virtual std::size_t bytes() const = 0;
    // Of these, what all forks share.
    virtual std::size_t shared_bytes() const { return bias_->bytes(); }
    const Buffer<float>& bias() const { return *bias_; }  // [block][width]

    const BlockLayout layout;

protected:
    Connection(const Connection&) = default;
    virtual std::unique_ptr<Connection> clone() const = 0;

    Source source_;
    Watch* watch_;

private:
    std::shared_ptr<const Buffer<float>> bias_;
};

// weight [Co, Ci/groups, kh, kw], bias [Co]. `workers`: that will share the blocks. Throws Stopped.
std::unique_ptr<Connection> make_convolution(const Kernels& kernels, Source source,
                                             const ConvolutionShape& shape, Weights weight,
                                             const float* bias, Workers& workers);

// weight [out, in], `in` in the order channel·pixels + pixel, bias [out]. `workers`: that will share
// the blocks. Throws Stopped.
std::unique_ptr<Connection> make_dense(const Kernels& kernels, Source source, Extent seen, int out,
                                       Weights weight, const float* bias, Workers& workers);

// The signal itself is the current.
std::unique_ptr<Connection> make_identity(Source source, Watch& watch);

}  // namespace mpsl
