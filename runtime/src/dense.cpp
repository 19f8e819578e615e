#include <algorithm>

#include "connection.hpp"

namespace mpsl {

namespace {

// Fully connected: the rows of active inputs are added up.
class Dense : public Connection {
public:
    Dense(const Kernels& kernels, Source source, Extent seen, int out, const float* weight,
          const float* bias_values)
        : Connection(BlockLayout(Extent{out, 1, 1})), kernels_(kernels), source_(source),
          seen_(seen), weights_(seen.size() * layout.size()) {
        const std::size_t in = seen.size();
        for (int o = 0; o < out; ++o)
            for (std::size_t i = 0; i < in; ++i)
                weights_[i * layout.size() + o] = weight[o * in + i];
        std::copy_n(bias_values, out, bias.data());
    }

    std::uint64_t prepare() override {
        rows_.clear();
        std::uint64_t synops = 0;
        if (source_.pooled) {
            synops = pooled_rows();
        } else {
            for (const ActiveValue& one : source_.signal->active()) {
                rows_.push_back({one.index, one.value});
                synops += std::uint64_t(one.activity);
            }
        }
        return synops * layout.extent.channels;
    }

    void accumulate(int, float* current) const override {
        DenseJob job{};
        job.rows = rows_.data();
        job.row_count = rows_.size();
        job.weights = weights_.data();
        job.padded_out = layout.size();
        job.current = current;
        kernels_.dense(job);
    }

    int blocks_at_once() const override { return layout.blocks; }
    std::size_t bytes() const override { return weights_.bytes() + bias.bytes(); }

private:
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
                        rows_.push_back({std::uint32_t(channel * seen_.pixels() + pixel),
                                         float(count) * source_.scale});
                        spikes += count;
                    }
                }
        return spikes;
    }

    const Kernels& kernels_;
    const Source source_;
    const Extent seen_;
    Buffer<float> weights_;  // [in][padded out]
    std::vector<ActiveRow> rows_;
};

// Neurons without weights before them.
class Identity : public Connection {
public:
    explicit Identity(Source source)
        : Connection(BlockLayout(source.signal->extent)), source_(source) {}

    std::uint64_t prepare() override {
        source_.signal->values();
        return 0;
    }

    void accumulate(int block, float* current) const override {
        const Buffer<float>& values = source_.signal->values();
        const std::size_t pixels = layout.extent.pixels();
        const int begin = block * layout.width;
        const int end = std::min(begin + layout.width, layout.extent.channels);
        for (int c = begin; c < end; ++c)
            for (std::size_t p = 0; p < pixels; ++p)
                current[p * layout.width + c - begin] += values[c * pixels + p];
    }

    std::size_t bytes() const override { return bias.bytes(); }

private:
    const Source source_;
};

}  // namespace

std::unique_ptr<Connection> make_dense(const Kernels& kernels, Source source, Extent seen, int out,
                                       const float* weight, const float* bias) {
    return std::make_unique<Dense>(kernels, source, seen, out, weight, bias);
}

std::unique_ptr<Connection> make_identity(Source source) {
    return std::make_unique<Identity>(source);
}

}  // namespace mpsl
