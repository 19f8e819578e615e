#include "convolution.hpp"

namespace mpsl {

namespace {

class EventConvolution : public FloatConvolution {
public:
    EventConvolution(const Kernels& kernels, Source source, const ConvolutionShape& shape,
                     Weights weight, const float* bias_values, Watch& watch)
        : FloatConvolution(kernels, source, shape, weight, bias_values, watch),
          rows_(std::make_shared<const Reach>(shape.rows)),
          columns_(std::make_shared<const Reach>(shape.columns)),
          // Every event of a step has a place of its own, see Network::step_sparse.
          reached_(narrow<std::uint32_t>(product(pairs(), shape.input.channels),
                                         "reach of a convolution")),
          begin_(sum(layout.extent.pixels(), 2)), targets_(1 + pairs() / shape.input.pixels()) {}

    std::uint64_t prepare() override {
        const std::vector<ActiveValue>& events = source_.signal->active();
        begin_.clear();
        // Counted two places on, then shifted by filling: begin_[o] is where output o begins.
        std::uint64_t synops = 0;
        for (const ActiveValue& event : events) {
            synops += std::uint64_t(event.activity) * fanout()[event.index % shape_.input.pixels()];
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
        job.weights = weights(block);
        job.first_channel = range(block).first;
        job.channel_count = range(block).count;
        job.width = layout.width;
        job.outputs = std::size_t(rows.count()) * layout.extent.columns;
        job.current = &current->real;
        kernels_.gather_events(job);
    }

    int rows_at_once() const override { return strip_rows(); }
    std::size_t bytes() const override {
        return shared_bytes() + reached_.bytes() + begin_.bytes();
    }
    std::size_t shared_bytes() const override {
        return FloatConvolution::shared_bytes() + reach_bytes();
    }

private:
    std::unique_ptr<Connection> clone() const override {
        return std::make_unique<EventConvolution>(*this);
    }
    std::size_t pairs() const { return product(rows_->targets.size(), columns_->targets.size()); }
    std::size_t reach_bytes() const { return rows_->bytes() + columns_->bytes(); }

    // visit(output, tap) for all that an event reaches.
    template <class Visit>
    void each_target(const ActiveValue& event, Visit visit) const {
        const int pixel = int(event.index % shape_.input.pixels());
        const int row = pixel / shape_.input.columns, column = pixel % shape_.input.columns;
        watch_->spend(targets_);
        const Reach &rows = *rows_, &columns = *columns_;
        for (std::uint32_t r = rows.begin[row]; r < rows.begin[row + 1]; ++r)
            for (std::uint32_t c = columns.begin[column]; c < columns.begin[column + 1]; ++c)
                visit(std::size_t(rows.targets[r].output) * shape_.output.columns +
                          columns.targets[c].output,
                      rows.targets[r].tap * shape_.columns.taps + columns.targets[c].tap);
    }

    const std::shared_ptr<const Reach> rows_, columns_;
    Scratch<EventReach> reached_;
    Buffer<std::uint32_t> begin_;  // [outputs + 2]
    const std::size_t targets_;    // of an event, about
};

}  // namespace

std::unique_ptr<Connection> make_event_convolution(const Kernels& kernels, Source source,
                                                   const ConvolutionShape& shape, Weights weight,
                                                   const float* bias, Watch& watch) {
    return std::make_unique<EventConvolution>(kernels, source, shape, weight, bias, watch);
}

}  // namespace mpsl
