#include <algorithm>

#include "connection.hpp"
#include "crossover.hpp"
#include "dense_input.hpp"
#include "spike_lists.hpp"

namespace mpsl {

namespace {

struct ChannelRange {
    int first, count;
};

// Of the input channels that one block of outputs sees: all, or those of its groups.
ChannelRange channels_of_block(const ConvolutionShape& shape, ChannelRange outputs) {
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
                     Weight weight) {
    const int in_group = shape.input.channels / shape.groups;
    const int out_group = shape.output.channels / shape.groups;
    const std::size_t taps = shape.taps(), tap_size = std::size_t(inputs.count) * outputs.count;
    Buffer<T> packed(taps * tap_size);
    const int end = std::min(outputs.first + outputs.count, shape.output.channels);
    for (int out = outputs.first; out < end; ++out)
        for (int i = 0; i < in_group; ++i) {
            const std::size_t kernel = (std::size_t(out) * in_group + i) * taps;
            const int row = out / out_group * in_group + i - inputs.first;
            T* const to = packed.data() + std::size_t(row) * outputs.count + out - outputs.first;
            for (std::size_t tap = 0; tap < taps; ++tap) to[tap * tap_size] = weight(kernel + tap);
        }
    return packed;
}

template <class T>
std::size_t bytes_of(const std::vector<Buffer<T>>& buffers) {
    std::size_t bytes = 0;
    for (const Buffer<T>& buffer : buffers) bytes += buffer.bytes();
    return bytes;
}

constexpr int kStripPixels = 16;

class Convolution : public Connection {
public:
    Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                const float* bias_values, int narrowest)
        : Connection(BlockLayout(shape.output, narrowest)), kernels_(kernels), source_(source),
          shape_(shape), rows_(shape.rows), columns_(shape.columns),
          fanout_(shape.input.pixels()) {
        std::copy_n(bias_values, shape.output.channels, bias.data());
        const int per_tap = shape.output.channels / shape.groups;
        for (int y = 0; y < shape.input.rows; ++y)
            for (int x = 0; x < shape.input.columns; ++x)
                fanout_[std::size_t(y) * shape.input.columns + x] =
                    rows_.count(y) * columns_.count(x) * per_tap;
    }

    std::size_t bytes() const override { return bias.bytes() + fanout_.bytes(); }

protected:
    // Enough rows to be worth a call, few enough for the first-level cache.
    int strip_rows() const {
        return (kStripPixels + layout.extent.columns - 1) / layout.extent.columns;
    }

    const Kernels& kernels_;
    const Source source_;
    const ConvolutionShape shape_;
    const Reach rows_, columns_;
    Buffer<std::uint32_t> fanout_;  // [input pixel]: weights that a spike there reaches
};

// Fixed, measured on network A: the dense loops round other sums than lists, and a step must not be
// rounded as a clock decides.
constexpr double kFloatCrossover = 0.45, kPooledFloatCrossover = 0.30;
// Where the crossover of whole numbers is looked for, in sixteenths.
constexpr int kInt8Crossover = 5, kPooledInt8Crossover = 2;

class FloatConvolution : public Convolution {
public:
    FloatConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                     Weights weight, const float* bias_values)
        : Convolution(kernels, source, shape, bias_values, kFloatNarrowest) {
        for (int block = 0; block < layout.blocks; ++block) {
            const ChannelRange outputs{block * layout.width, layout.width};
            ranges_.push_back(channels_of_block(shape, outputs));
            weights_.push_back(pack_block<float>(
                shape, outputs, ranges_[block],
                [&](std::size_t i) { return weight.at(i) * source.scale; }));
        }
    }

    std::size_t bytes() const override { return Convolution::bytes() + bytes_of(weights_); }

protected:
    std::vector<ChannelRange> ranges_;    // [block], of inputs
    std::vector<Buffer<float>> weights_;  // [block] -> [tap][channel][width]
};

// Event by event, output by output: any input, any grouping.
class EventConvolution : public FloatConvolution {
public:
    using FloatConvolution::FloatConvolution;

    std::uint64_t prepare() override {
        const std::vector<ActiveValue>& events = source_.signal->active();
        const std::size_t outputs = layout.extent.pixels();
        begin_.assign(outputs + 2, 0);
        // Counted two places on, then shifted by filling: begin_[o] is where output o begins.
        std::uint64_t synops = 0;
        for (const ActiveValue& event : events) {
            synops += std::uint64_t(event.activity) * fanout_[event.index % shape_.input.pixels()];
            each_target(event, [&](std::size_t output, int) { ++begin_[output + 2]; });
        }
        for (std::size_t output = 2; output < begin_.size(); ++output)
            begin_[output] += begin_[output - 1];
        reached_.resize(begin_.back());
        for (const ActiveValue& event : events) {
            const int channel = int(event.index / shape_.input.pixels());
            each_target(event, [&](std::size_t output, int tap) {
                reached_[begin_[output + 1]++] = {tap, channel, event.value};
            });
        }
        return synops;
    }

    void accumulate(int block, RowRange rows, Sum* current) const override {
        EventJob job{};
        job.reached = reached_.data();
        job.begin = begin_.data() + std::size_t(rows.begin) * layout.extent.columns;
        job.weights = weights_[block].data();
        job.first_channel = ranges_[block].first;
        job.channel_count = ranges_[block].count;
        job.width = layout.width;
        job.outputs = std::size_t(rows.count()) * layout.extent.columns;
        job.current = &current->real;
        kernels_.gather_events(job);
    }

    int rows_at_once() const override { return strip_rows(); }

private:
    // visit(output, tap) for all that an event reaches.
    template <class Visit>
    void each_target(const ActiveValue& event, Visit visit) const {
        const int pixel = int(event.index % shape_.input.pixels());
        const int row = pixel / shape_.input.columns, column = pixel % shape_.input.columns;
        for (std::uint32_t r = rows_.begin[row]; r < rows_.begin[row + 1]; ++r)
            for (std::uint32_t c = columns_.begin[column]; c < columns_.begin[column + 1]; ++c)
                visit(std::size_t(rows_.targets[r].output) * shape_.output.columns +
                          columns_.targets[c].output,
                      rows_.targets[r].tap * shape_.columns.taps + columns_.targets[c].tap);
    }

    std::vector<EventReach> reached_;
    std::vector<std::uint32_t> begin_;  // [outputs + 2]
};

// Spikes, perhaps pooled 2x2: for each tap a slab of weights stays in the first-level cache while
// all pixels pass by.
class SlabConvolution : public FloatConvolution {
public:
    SlabConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                    Weights weight, const float* bias_values)
        : FloatConvolution(kernels, source, shape, weight, bias_values),
          lists_(kernels, source, shape.input, kSlabChannels,
                 layout.width * int(sizeof(float))) {
        if (layout.width != 64) return;
        dense_ = std::make_unique<DenseInput>(kernels, source, shape, true);
        const double forced = forced_crossover();
        if (forced >= 0) crossover_ = forced;
        else crossover_ = source.pooled ? kPooledFloatCrossover : kFloatCrossover;
    }

    std::uint64_t prepare() override {
        is_dense_ = dense_ && dense_->density() > crossover_;
        return is_dense_ ? dense_->build(fanout_.data()) : lists_.build(fanout_.data());
    }

    void accumulate(int block, RowRange, Sum* current) const override {
        if (is_dense_) return accumulate_dense(block, current);
        GatherJob job{};
        job.offsets = lists_.offsets();
        job.current = &current->real;
        job.width = layout.width;
        for (int chunk = 0; chunk < lists_.chunks; ++chunk) {
            job.pixels = lists_.pixels(chunk);
            for (int tap = 0; tap < shape_.taps(); ++tap) {
                job.slab = weights_[block].data() +
                           (std::size_t(tap) * shape_.input.channels + chunk * kSlabChannels) *
                               layout.width;
                job.window = shape_.window(tap);
                kernels_.gather(job);
            }
        }
    }

    std::size_t bytes() const override {
        return FloatConvolution::bytes() + lists_.bytes() + (dense_ ? dense_->bytes() : 0);
    }
    double crossover() const override { return dense_ ? crossover_ : 1; }

private:
    void accumulate_dense(int block, Sum* current) const {
        TileJob job = dense_->job();
        job.channels = shape_.input.channels;
        job.weights = weights_[block].data();
        job.current = current;
        kernels_.tiles(job);
    }

    SpikeLists lists_;
    std::unique_ptr<DenseInput> dense_;  // null where there are no dense loops
    double crossover_ = 1;
    bool is_dense_ = false;  // in this step
};

// The same with int8 weights: all rows of one output after the other, for up to four blocks at
// once.
class Int8Convolution : public Convolution {
public:
    Int8Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                    Weights weight, const float* bias_values, int threads)
        : Convolution(kernels, source, shape, bias_values, kInt8Narrowest),
          quantum_(weight.quantum * source.scale),
          width_(layout.width * at_once(layout.blocks, threads)),
          lists_(kernels, source, shape.input, kRowChannels, 1) {
        for (int first = 0; first < shape.output.channels; first += width_)
            weights_.push_back(pack_block<std::int8_t>(
                shape, {first, width_}, {0, shape.input.channels},
                [&](std::size_t i) { return weight.whole[i]; }));
        if (layout.width != 64 || !kernels.has_int8_tiles) return;
        dense_ = std::make_unique<DenseInput>(kernels, source, shape, false);
        for (int block = 0; block < layout.blocks; ++block)
            dense_weights_.push_back(pack_fours(weight.whole, block));
        crossover_ = forced_crossover();
        if (crossover_ < 0) crossover_ = calibrated();
    }

    std::uint64_t prepare() override {
        is_dense_ = dense_ && dense_->density() > crossover_;
        return read();
    }

    void accumulate(int block, RowRange rows, Sum* current) const override {
        if (is_dense_) return accumulate_dense(block, current);
        Int8GatherJob job{};
        job.weights = weights_[block * layout.width / width_].data();
        job.channels = shape_.input.channels;
        job.lists = lists_.offsets();
        job.pixels = lists_.pixels(0);
        job.chunks = lists_.chunks;
        job.rows = taps_of(shape_.rows);
        job.columns = taps_of(shape_.columns);
        job.row_begin = rows.begin;
        job.row_end = rows.end;
        job.output_columns = shape_.output.columns;
        job.current = &current->whole;
        job.block_size = rows.count() * layout.row_size();
        job.width = width_;
        kernels_.gather_int8(job);
    }

    int blocks_at_once() const override { return width_ / layout.width; }
    int rows_at_once() const override { return is_dense_ ? layout.extent.rows : strip_rows(); }
    float quantum() const override { return quantum_; }
    double crossover() const override { return dense_ ? crossover_ : 1; }
    std::size_t bytes() const override {
        return Convolution::bytes() + bytes_of(weights_) + lists_.bytes() +
               bytes_of(dense_weights_) + (dense_ ? dense_->bytes() : 0);
    }

private:
    // As many of four as leave no block unused and no thread idle.
    static int at_once(int blocks, int threads) {
        const auto longest = [=](int count) {
            return (blocks / count + threads - 1) / threads * count;  // blocks of one thread
        };
        int best = 1;
        for (int count = 2; count <= kRowBlocks; count *= 2)
            if (blocks % count == 0 && longest(count) <= longest(best)) best = count;
        return best;
    }
    std::uint64_t read() {
        return is_dense_ ? dense_->build(fanout_.data()) : lists_.build(fanout_.data());
    }

    // Of one worker, and one go of blocks: more goes cost both ways the same.
    double calibrated() {
        Buffer<Sum> current(layout.block_size() * blocks_at_once());
        return calibrate(
            *source_.signal, source_.pooled ? kPooledInt8Crossover : kInt8Crossover,
            [&](bool is_dense) {
                is_dense_ = is_dense;
                read();
                const int rows = layout.extent.rows, step = rows_at_once();
                for (int row = 0; row < rows; row += step)
                    accumulate(0, {row, std::min(row + step, rows)}, current.data());
            });
    }

    static AxisTaps taps_of(const Axis& axis) {
        return {axis.taps, axis.stride, axis.before, axis.dilation, axis.input};
    }

    int fours() const { return (shape_.input.channels + 3) / 4; }

    // Weights [tap][channel / 4][64][4] of one block.
    Buffer<std::int8_t> pack_fours(const std::int8_t* weight, int block) const {
        const std::size_t taps = shape_.taps(), channels = shape_.input.channels;
        Buffer<std::int8_t> packed(taps * fours() * 256);
        const std::size_t first = std::size_t(block) * 64;
        const std::size_t end = std::min<std::size_t>(first + 64, shape_.output.channels);
        for (std::size_t out = first; out < end; ++out)
            for (std::size_t c = 0; c < channels; ++c)
                for (std::size_t tap = 0; tap < taps; ++tap)
                    packed[((tap * fours() + c / 4) * 64 + out - first) * 4 + c % 4] =
                        weight[(out * channels + c) * taps + tap];
        return packed;
    }

    void accumulate_dense(int first, Sum* current) const {
        TileJob job = dense_->job();
        job.channels = fours() * 4;
        for (int block = first; block < std::min(first + blocks_at_once(), layout.blocks); ++block) {
            job.weights = dense_weights_[block].data();
            job.current = current + (block - first) * layout.block_size();
            kernels_.tiles(job);
        }
    }

    const float quantum_;
    const int width_;  // of a row: 32, 64, 128 or 256
    SpikeLists lists_;
    std::vector<Buffer<std::int8_t>> weights_;  // [row block] -> [tap][channel][width_]
    std::unique_ptr<DenseInput> dense_;         // null where there are no dense loops
    std::vector<Buffer<std::int8_t>> dense_weights_;  // [block] -> [tap][channel / 4][64][4]
    double crossover_ = 1;
    bool is_dense_ = false;  // in this step
};

}  // namespace

std::unique_ptr<Connection> make_convolution(const Kernels& kernels, Source source,
                                             const ConvolutionShape& shape, Weights weight,
                                             const float* bias, int threads) {
    if (!source.signal->is_bits() || shape.groups != 1)
        return std::make_unique<EventConvolution>(kernels, source, shape, weight, bias);
    if (weight.is_int8())
        return std::make_unique<Int8Convolution>(kernels, source, shape, weight, bias, threads);
    return std::make_unique<SlabConvolution>(kernels, source, shape, weight, bias);
}

}  // namespace mpsl
