#include <optional>
#include <utility>

#include "convolution.hpp"
#include "crossover.hpp"
#include "dense_input.hpp"
#include "pieces.hpp"
#include "spike_lists.hpp"

namespace mpsl {

namespace {

// Where the crossover of whole numbers is looked for, in sixteenths.
constexpr int kInt8Crossover = 5, kPooledInt8Crossover = 2;

// Tap after tap, for up to four blocks at once.
class Int8Convolution : public Convolution {
public:
    Int8Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                    Weights weight, const float* bias_values, Workers& workers)
        : Convolution(kernels, source, shape, bias_values, kInt8Narrowest, workers.watch),
          quantum_(weight.quantum * source.scale),
          width_(layout.width * at_once(layout.blocks)), threads_(workers.threads()),
          lists_(kernels, source.pooled, shape.input, kRowChannels, 1) {
        Packed packed;
        for (int first = 0; first < shape.output.channels; first += width_) {
            packed.rows.push_back(pack_block<std::int8_t>(
                shape, {first, width_}, {0, shape.input.channels}, *watch_,
                [&](std::size_t i) { return weight.whole[i]; }));
            Buffer<std::int8_t>& rows = packed.rows.back();
            kernels.pair_rows(rows.data(), rows.size() / width_, width_);
        }
        const bool has_dense_loops = layout.width == 64 && kernels.has_int8_tiles;
        if (has_dense_loops)
            for (int block = 0; block < layout.blocks; ++block)
                packed.fours.push_back(pack_fours(weight.whole, block));
        packed_ = std::make_shared<const Packed>(std::move(packed));
        if (!has_dense_loops) return;
        dense_.emplace(kernels, source, shape, false);
        crossover_ = forced_crossover();
        if (crossover_ < 0) crossover_ = calibrated();
    }

    std::uint64_t prepare() override {
        is_dense_ = dense_ && source_.signal->density() > crossover_;
        return read();
    }

    void accumulate(int block, RowRange rows, Sum* current) const override {
        if (is_dense_) return accumulate_dense(block, rows, current);
        const double pixel = double(shape_.taps()) * shape_.input.channels * width_;
        double spent = 0;
        for_each_piece({rows.count(), layout.extent.columns}, pixel, spent, *watch_,
                       [&](Piece piece) { gather(block, rows, piece, current); });
    }

    int blocks_at_once() const override { return width_ / layout.width; }
    // What is summed at once by one thread is split over the rows among several.
    int rows_at_once() const override { return int(units(layout.extent.rows, threads_)); }
    float quantum() const override { return quantum_; }
    double crossover() const override { return dense_ ? crossover_ : 1; }
    std::size_t bytes() const override {
        return shared_bytes() + lists_.bytes() + (dense_ ? dense_->bytes() : 0);
    }
    std::size_t shared_bytes() const override {
        return Convolution::shared_bytes() + packed_->bytes();
    }

private:
    struct Packed {
        std::vector<Buffer<std::int8_t>> rows;   // [row block] -> [tap][channel][width_]
        std::vector<Buffer<std::int8_t>> fours;  // [block] -> [tap][channel / 4][64][4]

        std::size_t bytes() const { return bytes_of(rows) + bytes_of(fours); }
    };

    std::unique_ptr<Connection> clone() const override {
        return std::make_unique<Int8Convolution>(*this);
    }

    void gather(int block, RowRange rows, Piece piece, Sum* current) const {
        Int8GatherJob job{};
        job.weights = packed_->rows[block * layout.width / width_].data();
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

    // As many of four as leave no block unused.
    static int at_once(int blocks) {
        return blocks % kRowBlocks == 0 ? kRowBlocks : blocks % 2 == 0 ? 2 : 1;
    }
    std::uint64_t read() {
        const Signal& spikes = *source_.signal;
        return is_dense_ ? dense_->build(spikes, fanout()) : lists_.build(spikes, fanout());
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
                    watch_->check();
                    accumulate(0, {row, std::min(row + step, rows)}, current.data());
                }
                if (watch_->was_over()) throw Stopped();
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
            watch_->spend(taps * channels);
            for (std::size_t c = 0; c < channels; ++c)
                for (std::size_t tap = 0; tap < taps; ++tap)
                    packed[((tap * fours() + c / 4) * 64 + out - first) * 4 + c % 4] =
                        weight[(out * channels + c) * taps + tap];
        }
        return packed;
    }

    void accumulate_dense(int first, RowRange rows, Sum* current) const {
        const int end = std::min(first + blocks_at_once(), layout.blocks);
        for (int block = first; block < end; ++block)
            dense_->accumulate(packed_->fours[block].data(), fours() * 4, rows,
                               current + (block - first) * rows.count() * layout.row_size(),
                               *watch_);
    }

    const float quantum_;
    const int width_;  // of a row: 32, 64, 128 or 256
    const int threads_;
    SpikeLists lists_;
    std::shared_ptr<const Packed> packed_;
    std::optional<DenseInput> dense_;  // nothing where there are no dense loops
    double crossover_ = 1;
    bool is_dense_ = false;  // in this step
};

}  // namespace

std::unique_ptr<Connection> make_int8_convolution(const Kernels& kernels, Source source,
                                                  const ConvolutionShape& shape, Weights weight,
                                                  const float* bias, Workers& workers) {
    return std::make_unique<Int8Convolution>(kernels, source, shape, weight, bias, workers);
}

}  // namespace mpsl
