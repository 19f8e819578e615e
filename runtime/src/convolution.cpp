#include <algorithm>

#include "connection.hpp"
#include "crossover.hpp"
#include "dense_input.hpp"
#include "packing.hpp"
#include "pieces.hpp"
#include "spike_lists.hpp"

namespace mpsl {

namespace {

constexpr int kStripPixels = 16;

class Convolution : public Connection {
public:
    Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                const float* bias_values, int narrowest, Watch& watch)
        : Connection(BlockLayout(shape.output, narrowest)), kernels_(kernels), source_(source),
          shape_(shape), watch_(watch), fanout_(shape.input.pixels()) {
        std::copy_n(bias_values, shape.output.channels, bias.data());
        const int per_tap = shape.output.channels / shape.groups;
        const Buffer<std::uint32_t> rows = count_reached(shape.rows);
        const Buffer<std::uint32_t> columns = count_reached(shape.columns);
        for (int y = 0; y < shape.input.rows; ++y)
            for (int x = 0; x < shape.input.columns; ++x)
                fanout_[std::size_t(y) * shape.input.columns + x] = narrow<std::uint32_t>(
                    product(rows[y], columns[x], per_tap), "fan-out of a spike");
    }

    std::size_t bytes() const override { return bias.bytes() + fanout_.bytes(); }

protected:
    // Enough rows to be worth a call, few enough for the first-level cache.
    int strip_rows() const { return int(units(kStripPixels, layout.extent.columns)); }

    const Kernels& kernels_;
    const Source source_;
    const ConvolutionShape shape_;
    Watch& watch_;
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
                     Weights weight, const float* bias_values, Watch& watch)
        : Convolution(kernels, source, shape, bias_values, kFloatNarrowest, watch) {
        ranges_.reserve(layout.blocks);
        weights_.reserve(layout.blocks);
        for (int block = 0; block < layout.blocks; ++block) {
            const ChannelRange outputs{block * layout.width, layout.width};
            ranges_.push_back(channels_of_block(shape, outputs));
            weights_.push_back(pack_block<float>(
                shape, outputs, ranges_[block], watch,
                [&](std::size_t i) { return weight.at(i) * source.scale; }));
        }
    }

    std::size_t bytes() const override {
        return Convolution::bytes() + bytes_of(weights_) +
               ranges_.capacity() * sizeof(ChannelRange);
    }

protected:
    std::vector<ChannelRange> ranges_;    // [block], of inputs
    std::vector<Buffer<float>> weights_;  // [block] -> [tap][channel][width]
};

// Event by event, output by output: any input, any grouping.
class EventConvolution : public FloatConvolution {
public:
    EventConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                     Weights weight, const float* bias_values, Watch& watch)
        : FloatConvolution(kernels, source, shape, weight, bias_values, watch),
          rows_(shape.rows), columns_(shape.columns),
          // Every event of a step has a place of its own, see Network::step_sparse.
          reached_(narrow<std::uint32_t>(product(rows_.targets.size(), columns_.targets.size(),
                                                 shape.input.channels),
                                         "reach of a convolution")),
          begin_(sum(layout.extent.pixels(), 2)),
          targets_(1 + product(rows_.targets.size(), columns_.targets.size()) /
                           shape.input.pixels()) {}

    std::uint64_t prepare() override {
        const std::vector<ActiveValue>& events = source_.signal->active();
        begin_.clear();
        // Counted two places on, then shifted by filling: begin_[o] is where output o begins.
        std::uint64_t synops = 0;
        for (const ActiveValue& event : events) {
            synops += std::uint64_t(event.activity) * fanout_[event.index % shape_.input.pixels()];
            each_target(event, [&](std::size_t output, int) { ++begin_[output + 2]; });
        }
        for (std::size_t output = 2; output < begin_.size(); ++output)
            begin_[output] += begin_[output - 1];
        EventReach* const reached = reached_.room(begin_[begin_.size() - 1]);
        for (const ActiveValue& event : events) {
            const int channel = int(event.index / shape_.input.pixels());
            each_target(event, [&](std::size_t output, int tap) {
                reached[begin_[output + 1]++] = {tap, channel, event.value};
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
    std::size_t bytes() const override {
        return FloatConvolution::bytes() + rows_.bytes() + columns_.bytes() + reached_.bytes() +
               begin_.bytes();
    }

private:
    // visit(output, tap) for all that an event reaches.
    template <class Visit>
    void each_target(const ActiveValue& event, Visit visit) const {
        const int pixel = int(event.index % shape_.input.pixels());
        const int row = pixel / shape_.input.columns, column = pixel % shape_.input.columns;
        watch_.spend(targets_);
        for (std::uint32_t r = rows_.begin[row]; r < rows_.begin[row + 1]; ++r)
            for (std::uint32_t c = columns_.begin[column]; c < columns_.begin[column + 1]; ++c)
                visit(std::size_t(rows_.targets[r].output) * shape_.output.columns +
                          columns_.targets[c].output,
                      rows_.targets[r].tap * shape_.columns.taps + columns_.targets[c].tap);
    }

    const Reach rows_, columns_;
    Scratch<EventReach> reached_;
    Buffer<std::uint32_t> begin_;  // [outputs + 2]
    const std::size_t targets_;    // of an event, about
};

// Spikes, perhaps pooled 2x2: for each tap a slab of weights stays in the first-level cache while
// all pixels pass by.
class SlabConvolution : public FloatConvolution {
public:
    SlabConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                    Weights weight, const float* bias_values, Watch& watch)
        : FloatConvolution(kernels, source, shape, weight, bias_values, watch),
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
        if (is_dense_) {
            const float* const weights = weights_[block].data();
            return dense_->accumulate(weights, shape_.input.channels, current, watch_);
        }
        GatherJob job{};
        job.offsets = lists_.offsets();
        job.current = &current->real;
        job.width = layout.width;
        double spent = 0;
        for (int chunk = 0; chunk < lists_.chunks; ++chunk) {
            job.pixels = lists_.pixels(chunk);
            for (int tap = 0; tap < shape_.taps(); ++tap) {
                job.slab = weights_[block].data() +
                           (std::size_t(tap) * shape_.input.channels + chunk * kSlabChannels) *
                               layout.width;
                gather(job, shape_.window(tap), spent);
            }
        }
    }

    std::size_t bytes() const override {
        return FloatConvolution::bytes() + lists_.bytes() + (dense_ ? dense_->bytes() : 0);
    }
    double crossover() const override { return dense_ ? crossover_ : 1; }

private:
    // One tap, whose window is worked off in pieces.
    void gather(GatherJob& job, const TapWindow& window, double& spent) const {
        const Window map{window.row_end - window.row_begin,
                         window.column_end - window.column_begin};
        const double pixel = double(kSlabChannels) * layout.width;
        for_each_piece(map, pixel, spent, watch_, [&](Piece piece) {
            job.window = window;
            job.window.row_begin = window.row_begin + piece.row;
            job.window.row_end = job.window.row_begin + piece.rows;
            job.window.column_begin = window.column_begin + piece.column;
            job.window.column_end = job.window.column_begin + piece.columns;
            kernels_.gather(job);
        });
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
                    Weights weight, const float* bias_values, Workers& workers)
        : Convolution(kernels, source, shape, bias_values, kInt8Narrowest, workers.watch),
          quantum_(weight.quantum * source.scale),
          width_(layout.width * at_once(layout.blocks, workers.threads())),
          lists_(kernels, source, shape.input, kRowChannels, 1) {
        for (int first = 0; first < shape.output.channels; first += width_)
            weights_.push_back(pack_block<std::int8_t>(
                shape, {first, width_}, {0, shape.input.channels}, watch_,
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
        const double pixel = double(shape_.taps()) * shape_.input.channels * width_;
        double spent = 0;
        for_each_piece({rows.count(), layout.extent.columns}, pixel, spent, watch_,
                       [&](Piece piece) { gather(block, rows, piece, current); });
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
    void gather(int block, RowRange rows, Piece piece, Sum* current) const {
        Int8GatherJob job{};
        job.weights = weights_[block * layout.width / width_].data();
        job.channels = shape_.input.channels;
        job.lists = lists_.offsets();
        job.pixels = lists_.pixels(0);
        job.chunks = lists_.chunks;
        job.rows = taps_of(shape_.rows);
        job.columns = taps_of(shape_.columns);
        job.row_begin = rows.begin + piece.row;
        job.row_end = job.row_begin + piece.rows;
        job.column_begin = piece.column;
        job.column_end = piece.column + piece.columns;
        const std::size_t pixels = std::size_t(piece.row) * layout.extent.columns + piece.column;
        job.current = &current[pixels * layout.width].whole;
        job.block_size = rows.count() * layout.row_size();
        job.width = width_;
        kernels_.gather_int8(job);
    }

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
        Buffer<Sum> current(product(layout.block_size(), blocks_at_once()));
        return calibrate(
            *source_.signal, source_.pooled ? kPooledInt8Crossover : kInt8Crossover,
            [&](bool is_dense) {
                is_dense_ = is_dense;
                read();
                const int rows = layout.extent.rows, step = rows_at_once();
                for (int row = 0; row < rows; row += step) {
                    watch_.check();
                    accumulate(0, {row, std::min(row + step, rows)}, current.data());
                }
                if (watch_.was_over()) throw Stopped();
            });
    }

    static AxisTaps taps_of(const Axis& axis) {
        return {axis.taps, axis.stride, axis.before, axis.dilation, axis.input};
    }

    int fours() const { return (shape_.input.channels + 3) / 4; }

    // Weights [tap][channel / 4][64][4] of one block.
    Buffer<std::int8_t> pack_fours(const std::int8_t* weight, int block) const {
        const std::size_t taps = shape_.taps(), channels = shape_.input.channels;
        Buffer<std::int8_t> packed(product(taps, fours(), 256));
        const std::size_t first = std::size_t(block) * 64;
        const std::size_t end = std::min<std::size_t>(first + 64, shape_.output.channels);
        for (std::size_t out = first; out < end; ++out) {
            watch_.spend(taps * channels);
            for (std::size_t c = 0; c < channels; ++c)
                for (std::size_t tap = 0; tap < taps; ++tap)
                    packed[((tap * fours() + c / 4) * 64 + out - first) * 4 + c % 4] =
                        weight[(out * channels + c) * taps + tap];
        }
        return packed;
    }

    void accumulate_dense(int first, Sum* current) const {
        const int end = std::min(first + blocks_at_once(), layout.blocks);
        for (int block = first; block < end; ++block)
            dense_->accumulate(dense_weights_[block].data(), fours() * 4,
                               current + (block - first) * layout.block_size(), watch_);
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
                                             const float* bias, Workers& workers) {
    if (weight.is_int8() && source.signal->is_bits() && shape.groups == 1)
        return std::make_unique<Int8Convolution>(kernels, source, shape, weight, bias, workers);
    Watch& watch = workers.watch;
    if (!source.signal->is_bits() || shape.groups != 1)
        return std::make_unique<EventConvolution>(kernels, source, shape, weight, bias, watch);
    return std::make_unique<SlabConvolution>(kernels, source, shape, weight, bias, watch);
}

}  // namespace mpsl
