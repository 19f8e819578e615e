#include <algorithm>
#include <utility>

#include "connection.hpp"

namespace mpsl {

namespace {

// Fully connected: the rows of active inputs are added up.
class Dense : public Connection {
public:
    // `count_scale`: what one of the spikes that a 2x2 pool counts is worth in a row's value.
    // `workers`: that will share the outputs.
    Dense(const Kernels& kernels, Source source, Extent seen, int out, const float* bias_values,
          int narrowest, float count_scale, Workers& workers)
        : Connection(source, BlockLayout(Extent(out, 1, 1), narrowest), bias_values,
                     workers.watch),
          kernels_(kernels), seen_(seen), is_bits_(source.signal->is_bits()),
          count_scale_(count_scale), at_once_(blocks_of_task(workers.threads())) {
        rows_.reserve(seen.size());
    }

    std::uint64_t prepare() override {
        rows_.clear();
        std::uint64_t synops = 0;
        if (is_bits_) {
            synops = source_.pooled ? pooled_rows() : plain_rows();
        } else {
            for (const ActiveValue& one : source_.signal->active()) {
                rows_.push_back({one.index, one.value});
                synops += std::uint64_t(one.activity);
            }
        }
        return synops * layout.extent.channels;
    }

    int blocks_at_once() const override { return at_once_; }
    std::size_t bytes() const override {
        return shared_bytes() + rows_.capacity() * sizeof(ActiveRow);
    }

protected:
    Dense(const Dense& like) : Connection(like), kernels_(like.kernels_), seen_(like.seen_),
          is_bits_(like.is_bits_), count_scale_(like.count_scale_), at_once_(like.at_once_) {
        rows_.reserve(seen_.size());
    }

    // Weights [in][padded out], the rows of spikes in the order in which they are read: pixel by
    // pixel. Sixteen rows of the given weights at a time, so that whole cache lines are written.
    template <class T, class Weight>
    std::shared_ptr<const Buffer<T>> pack(Weight weight) const {
        constexpr std::size_t kOutputs = 16;
        const std::size_t in = seen_.size(), out = layout.extent.channels;
        const std::size_t pixels = seen_.pixels();
        Buffer<T> packed(product(in, layout.size()));
        for (std::size_t first = 0; first < out; first += kOutputs) {
            const std::size_t end = std::min(first + kOutputs, out);
            watch_->spend(in * kOutputs);
            for (std::size_t i = 0; i < in; ++i) {
                const std::size_t row = is_bits_ ? row_of(i / pixels, i % pixels) : i;
                T* const to = packed.data() + row * layout.size();
                for (std::size_t o = first; o < end; ++o) to[o] = weight(o * in + i);
            }
        }
        return std::make_shared<const Buffer<T>>(std::move(packed));
    }

    // Columns of the weights: where a task's begin, and how many it has.
    std::size_t first_column(int block) const { return std::size_t(block) * layout.width; }
    std::size_t columns(int block) const {
        return std::size_t(std::min(at_once_, layout.blocks - block)) * layout.width;
    }

    const Kernels& kernels_;
    const Extent seen_;
    std::vector<ActiveRow> rows_;

private:
    // One for each thread, unless the weights are so few that handing them on takes longer.
    int blocks_of_task(int threads) const {
        const bool is_shared = product(seen_.size(), layout.size()) >= kSharedWeights;
        return is_shared ? int(units(layout.blocks, threads)) : layout.blocks;
    }
    std::size_t row_of(std::size_t channel, std::size_t pixel) const {
        return pixel * seen_.channels + channel;
    }
    std::uint64_t plain_rows() {
        const Signal& source = *source_.signal;
        for (std::size_t pixel = 0; pixel < seen_.pixels(); ++pixel)
            for (int w = 0; w < source.words; ++w)
                for (std::uint64_t word = source.bits[pixel * source.words + w]; word;
                     word &= word - 1) {
                    const std::size_t channel = std::size_t(w) * 64 + __builtin_ctzll(word);
                    rows_.push_back({std::uint32_t(row_of(channel, pixel)), 1.0f});
                }
        return rows_.size();
    }
    // A 2x2 window's spikes are counted, and its row is added once, times the count.
    std::uint64_t pooled_rows() {
        const Signal& source = *source_.signal;
        const std::size_t right = source.words, down = right * source.extent.columns;
        std::uint64_t spikes = 0;
        for (int y = 0; y < seen_.rows; ++y)
            for (int x = 0; x < seen_.columns; ++x)
                for (int w = 0; w < source.words; ++w) {
                    const std::uint64_t* const a =
                        source.bits.data() + 2 * y * down + 2 * x * right + w;
                    const std::uint64_t nw = a[0], ne = a[right], sw = a[down], se = a[down + right];
                    for (std::uint64_t any = nw | ne | sw | se; any; any &= any - 1) {
                        const int bit = __builtin_ctzll(any);
                        const int count = int((nw >> bit & 1) + (ne >> bit & 1) + (sw >> bit & 1) +
                                              (se >> bit & 1));
                        const std::size_t channel = w * 64 + bit;
                        const std::size_t pixel = std::size_t(y) * seen_.columns + x;
                        rows_.push_back({std::uint32_t(row_of(channel, pixel)),
                                         float(count) * count_scale_});
                        spikes += count;
                    }
                }
        return spikes;
    }

    static constexpr std::size_t kSharedWeights = 1 << 18;

    const bool is_bits_;
    const float count_scale_;
    const int at_once_;  // blocks of one task
};

class FloatDense : public Dense {
public:
    FloatDense(const Kernels& kernels, Source source, Extent seen, int out, Weights weight,
               const float* bias_values, Workers& workers)
        : Dense(kernels, source, seen, out, bias_values, kFloatNarrowest, source.scale, workers),
          weights_(packed(weight)) {}

    std::size_t replaceable() const override {
        return product(seen_.size(), layout.extent.channels);
    }
    void replace(Weights weight) override { weights_ = packed(weight); }

    void accumulate(int block, RowRange, Sum* current) const override {
        DenseJob job{};
        job.rows = rows_.data();
        job.row_count = rows_.size();
        job.weights = weights_->data() + first_column(block);
        job.padded_out = layout.size();
        job.columns = columns(block);
        job.current = &current->real;
        kernels_.dense(job);
    }

    std::size_t shared_bytes() const override { return Dense::shared_bytes() + weights_->bytes(); }

private:
    std::unique_ptr<Connection> clone() const override {
        return std::make_unique<FloatDense>(*this);
    }
    std::shared_ptr<const Buffer<float>> packed(Weights weight) const {
        return pack<float>([&](std::size_t i) { return weight.at(i); });
    }

    std::shared_ptr<const Buffer<float>> weights_;  // [in][padded out]
};

// The same with int8 weights, from spikes.
class Int8Dense : public Dense {
public:
    Int8Dense(const Kernels& kernels, Source source, Extent seen, int out, Weights weight,
              const float* bias_values, Workers& workers)
        : Dense(kernels, source, seen, out, bias_values, kInt8Narrowest, 1.0f, workers),
          quantum_(weight.quantum * source.scale),
          weights_(pack<std::int8_t>([&](std::size_t i) { return weight.whole[i]; })) {}

    void accumulate(int block, RowRange, Sum* current) const override {
        Int8DenseJob job{};
        job.rows = rows_.data();
        job.row_count = rows_.size();
        job.weights = weights_->data() + first_column(block);
        job.padded_out = layout.size();
        job.columns = columns(block);
        job.current = &current->whole;
        kernels_.dense_int8(job);
    }

    float quantum() const override { return quantum_; }
    std::size_t shared_bytes() const override { return Dense::shared_bytes() + weights_->bytes(); }

private:
    std::unique_ptr<Connection> clone() const override {
        return std::make_unique<Int8Dense>(*this);
    }

    const float quantum_;
    const std::shared_ptr<const Buffer<std::int8_t>> weights_;  // [in][padded out]
};

// Neurons without weights before them.
class Identity : public Connection {
public:
    Identity(Source source, Watch& watch)
        : Connection(source, BlockLayout(source.signal->extent), nullptr, watch) {}

    std::uint64_t prepare() override {
        source_.signal->values();
        return 0;
    }

    void accumulate(int block, RowRange, Sum* current) const override {
        const Buffer<float>& values = source_.signal->values();
        const std::size_t pixels = layout.extent.pixels();
        const int begin = block * layout.width;
        const int end = std::min(begin + layout.width, layout.extent.channels);
        for (int c = begin; c < end; ++c)
            for (std::size_t p = 0; p < pixels; ++p)
                current[p * layout.width + c - begin].real += values[c * pixels + p];
    }

    std::size_t bytes() const override { return shared_bytes(); }

private:
    std::unique_ptr<Connection> clone() const override {
        return std::make_unique<Identity>(*this);
    }
};

}  // namespace

std::unique_ptr<Connection> make_dense(const Kernels& kernels, Source source, Extent seen, int out,
                                       Weights weight, const float* bias, Workers& workers) {
    if (weight.is_int8() && source.signal->is_bits())
        return std::make_unique<Int8Dense>(kernels, source, seen, out, weight, bias, workers);
    return std::make_unique<FloatDense>(kernels, source, seen, out, weight, bias, workers);
}

std::unique_ptr<Connection> make_identity(Source source, Watch& watch) {
    return std::make_unique<Identity>(source, watch);
}

}  // namespace mpsl
