#include <algorithm>

#include "connection.hpp"

namespace mpsl {

namespace {

// The input channels that one block of outputs sees: all, or those of its groups.
struct ChannelRange {
    int first, count;
};

ChannelRange channels_of_block(const ConvolutionShape& shape, const BlockLayout& layout, int block) {
    const int in_group = shape.input.channels / shape.groups;
    const int out_group = shape.output.channels / shape.groups;
    const int last = std::min((block + 1) * layout.width, shape.output.channels) - 1;
    const int first_group = block * layout.width / out_group, last_group = last / out_group;
    return {first_group * in_group, (last_group - first_group + 1) * in_group};
}

// Weights [tap][channel − first][width] of one block; zero where a group does not reach.
Buffer<float> pack_block(const ConvolutionShape& shape, const BlockLayout& layout, int block,
                         ChannelRange range, const float* weight, float scale) {
    const int in_group = shape.input.channels / shape.groups;
    const int out_group = shape.output.channels / shape.groups;
    const int taps = shape.taps();
    Buffer<float> packed(std::size_t(taps) * range.count * layout.width);
    const int end = std::min((block + 1) * layout.width, shape.output.channels);
    for (int out = block * layout.width; out < end; ++out)
        for (int i = 0; i < in_group; ++i) {
            const float* const kernel = weight + (std::size_t(out) * in_group + i) * taps;
            const int row = out / out_group * in_group + i - range.first;
            float* const to = packed.data() + std::size_t(row) * layout.width + out % layout.width;
            for (int tap = 0; tap < taps; ++tap)
                to[std::size_t(tap) * range.count * layout.width] = kernel[tap] * scale;
        }
    return packed;
}

class Convolution : public Connection {
public:
    Convolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                const float* weight, const float* bias_values)
        : Connection(BlockLayout(shape.output)), kernels_(kernels), source_(source), shape_(shape),
          rows_(shape.rows), columns_(shape.columns), fanout_(shape.input.pixels()) {
        std::copy_n(bias_values, shape.output.channels, bias.data());
        for (int block = 0; block < layout.blocks; ++block) {
            ranges_.push_back(channels_of_block(shape, layout, block));
            weights_.push_back(
                pack_block(shape, layout, block, ranges_[block], weight, source.scale));
        }
        const int per_tap = shape.output.channels / shape.groups;
        for (int y = 0; y < shape.input.rows; ++y)
            for (int x = 0; x < shape.input.columns; ++x)
                fanout_[std::size_t(y) * shape.input.columns + x] =
                    rows_.count(y) * columns_.count(x) * per_tap;
    }

    std::size_t bytes() const override {
        std::size_t bytes = bias.bytes() + fanout_.bytes();
        for (const Buffer<float>& block : weights_) bytes += block.bytes();
        return bytes;
    }

protected:
    const Kernels& kernels_;
    const Source source_;
    const ConvolutionShape shape_;
    const Reach rows_, columns_;
    Buffer<std::uint32_t> fanout_;  // [input pixel]: weights that a spike there reaches
    std::vector<ChannelRange> ranges_;   // [block]
    std::vector<Buffer<float>> weights_;  // [block] -> [tap][channel][width]
};

// Event by event: any input, any grouping.
class PushConvolution : public Convolution {
public:
    using Convolution::Convolution;

    std::uint64_t prepare() override {
        events_.clear();
        std::uint64_t synops = 0;
        const std::size_t pixels = shape_.input.pixels();
        for (const ActiveValue& one : source_.signal->active()) {
            const std::size_t pixel = one.index % pixels;
            const int columns = shape_.input.columns;
            events_.push_back({std::int32_t(one.index / pixels), std::int32_t(pixel / columns),
                               std::int32_t(pixel % columns), one.value});
            synops += std::uint64_t(one.activity) * fanout_[pixel];
        }
        return synops;
    }

    void accumulate(int block, float* current) const override {
        PushJob job{};
        job.events = events_.data();
        job.event_count = events_.size();
        job.weights = weights_[block].data();
        job.first_channel = ranges_[block].first;
        job.channel_count = ranges_[block].count;
        job.width = layout.width;
        job.tap_columns = shape_.columns.taps;
        job.output_columns = shape_.output.columns;
        job.row_begin = rows_.begin.data();
        job.row_targets = rows_.targets.data();
        job.column_begin = columns_.begin.data();
        job.column_targets = columns_.targets.data();
        job.current = current;
        kernels_.push(job);
    }

private:
    std::vector<InputEvent> events_;
};

// Spikes, perhaps pooled 2x2: for each tap a slab of weights stays in the first-level cache while
// all pixels pass by.
class SlabConvolution : public Convolution {
public:
    SlabConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                    const float* weight, const float* bias_values)
        : Convolution(kernels, source, shape, weight, bias_values),
          chunks_((shape.input.channels + kChunkChannels - 1) / kChunkChannels),
          pixels_(chunks_ * shape.input.pixels()),
          // A channel is in at most two of fours, twos and ones.
          offsets_(shape.input.pixels() * shape.input.channels * (source.pooled ? 2 : 1) +
                   kListSlack) {}

    std::uint64_t prepare() override {
        std::uint64_t synops = 0;
        std::uint32_t used = 0;
        for (int chunk = 0; chunk < chunks_; ++chunk) {
            ListJob job{};
            job.spikes = source_.signal->bits.data();
            job.words = source_.signal->words;
            job.first_word = chunk * (kChunkChannels / 64);
            job.word_count = std::min(kChunkChannels / 64, job.words - job.first_word);
            job.rows = shape_.input.rows;
            job.columns = shape_.input.columns;
            job.source_columns = source_.signal->extent.columns;
            job.pooled = source_.pooled;
            job.row_bytes = layout.width * int(sizeof(float));
            job.fanout = fanout_.data();
            job.offsets = offsets_.data();
            job.first_offset = used;
            job.pixels = pixels_.data() + chunk * shape_.input.pixels();
            kernels_.build_lists(job);
            used = job.end_offset;
            synops += job.synops;
        }
        return synops;
    }

    void accumulate(int block, float* current) const override {
        GatherJob job{};
        job.offsets = offsets_.data();
        job.current = current;
        job.width = layout.width;
        job.row_stride = shape_.rows.stride;
        job.column_stride = shape_.columns.stride;
        job.input_columns = shape_.input.columns;
        job.output_columns = shape_.output.columns;
        for (int chunk = 0; chunk < chunks_; ++chunk) {
            job.pixels = pixels_.data() + chunk * shape_.input.pixels();
            for (int tap = 0; tap < shape_.taps(); ++tap) {
                const int row_tap = tap / shape_.columns.taps, column_tap = tap % shape_.columns.taps;
                job.slab = weights_[block].data() +
                           (std::size_t(tap) * shape_.input.channels + chunk * kChunkChannels) *
                               layout.width;
                job.row_begin = shape_.rows.output_begin(row_tap);
                job.row_end = shape_.rows.output_end(row_tap);
                job.row_offset = shape_.rows.input_offset(row_tap);
                job.column_begin = shape_.columns.output_begin(column_tap);
                job.column_end = shape_.columns.output_end(column_tap);
                job.column_offset = shape_.columns.input_offset(column_tap);
                kernels_.gather(job);
            }
        }
    }

    std::size_t bytes() const override {
        return Convolution::bytes() + pixels_.bytes() + offsets_.bytes();
    }

private:
    const int chunks_;
    Buffer<PixelSpikes> pixels_;      // [chunk][input pixel]
    Buffer<std::uint16_t> offsets_;
};

}  // namespace

std::unique_ptr<Connection> make_convolution(const Kernels& kernels, Source source,
                                             const ConvolutionShape& shape, const float* weight,
                                             const float* bias) {
    if (source.signal->is_bits() && shape.groups == 1)
        return std::make_unique<SlabConvolution>(kernels, source, shape, weight, bias);
    return std::make_unique<PushConvolution>(kernels, source, shape, weight, bias);
}

}  // namespace mpsl
