#include "stages.hpp"

#include <algorithm>
#include <utility>

namespace mpsl {

namespace {

// Threads write side by side without sharing a cache line.
std::size_t whole_lines(std::size_t size) { return rounded_up(size, 64 / sizeof(Sum)); }

}  // namespace

Desks::Desks(const Connection& connection, const Workers& workers)
    : blocks(connection.layout.blocks), at_once(connection.blocks_at_once()),
      goes(narrow<int>(units(blocks, at_once))),
      current_size_(whole_lines(product(connection.layout.block_size(), at_once))),
      current_(product(current_size_,
                       // No more threads than tasks, which are counted as int.
                       std::min(narrow<int>(product(goes, connection.layout.extent.rows)),
                                workers.threads()))) {}

PopulationStage::PopulationStage(const Kernels& kernels, Workers& workers,
                                 std::unique_ptr<Connection> connection,
                                 const NeuronParameters& parameters)
    : population(kernels, connection->layout, parameters), workers_(workers),
      connection_(std::move(connection)), desks_(*connection_, workers) {}

PopulationStage::PopulationStage(const PopulationStage& like, Workers& workers,
                                 const ForkedSignals& signals)
    : population(like.population), workers_(workers),
      connection_(like.connection_->fork(signals.of(like.connection_->source()), workers.watch)),
      desks_(*connection_, workers) {}

std::unique_ptr<Stage> PopulationStage::fork(Workers& workers, const ForkedSignals& signals) const {
    return std::make_unique<PopulationStage>(*this, workers, signals);
}

std::uint64_t PopulationStage::run(Current mode) {
    const std::size_t block_size = connection_->layout.block_size();
    const RowRange all{0, connection_->layout.extent.rows};
    if (mode == Current::Compute) {
        const std::uint64_t synops = connection_->prepare();
        const int step = connection_->rows_at_once();
        const int strips = int(units(all.end, step));
        workers_.run(desks_.goes * strips, [&](int task, int worker) {
            const int row = task % strips * step;
            accumulate_and_fire(task / strips * desks_.at_once,
                                {row, std::min(row + step, all.end)}, desks_.current(worker));
        });
        population.finish_step();
        return synops;
    }
    if (mode == Current::ComputeAndHold) {
        if (held_.empty())
            held_ = Buffer<Sum>(product(block_size, desks_.at_once, desks_.goes));
        held_.clear();
        held_synops_ = connection_->prepare();
        workers_.run(desks_.goes, [&](int go, int) {
            const int first = go * desks_.at_once;
            connection_->accumulate(first, all, held_.data() + first * block_size);
        });
    }
    workers_.run(desks_.blocks, [&](int block, int) {
        fire(block, all, held_.data() + block * block_size, false);
    });
    population.finish_step();
    return held_synops_;
}

void PopulationStage::rest() {
    population.reset();
    desks_.clear();
}

void PopulationStage::accumulate_and_fire(int first, RowRange rows, Sum* current) {
    const BlockLayout& layout = connection_->layout;
    connection_->accumulate(first, rows, current);
    const int end = std::min(first + connection_->blocks_at_once(), layout.blocks);
    for (int block = first; block < end; ++block, current += rows.count() * layout.row_size())
        fire(block, rows, current, true);
}

void PopulationStage::fire(int block, RowRange rows, Sum* current, bool clear) {
    population.fire(block, rows, current, connection_->quantum(),
                    connection_->bias().data() + block * connection_->layout.width, clear);
}

std::size_t PopulationStage::bytes() const {
    return population.bytes() + connection_->bytes() + desks_.bytes() + held_.bytes();
}

WeightStage::WeightStage(Workers& workers, std::unique_ptr<Connection> connection)
    : output(connection->layout.extent, Signal::Values), workers_(workers), connection_(std::move(connection)),
      desks_(*connection_, workers) {
    output.write_values();
}

std::unique_ptr<Stage> WeightStage::fork(Workers& workers, const ForkedSignals& signals) const {
    Signal& source = signals.of(connection_->source());
    return std::make_unique<WeightStage>(workers, connection_->fork(source, workers.watch));
}

std::uint64_t WeightStage::run(Current) {
    const BlockLayout& layout = connection_->layout;
    const std::size_t pixels = layout.extent.pixels();
    const int channels_at_once = desks_.at_once * layout.width;
    const std::uint64_t synops = connection_->prepare();
    float* const values = output.write_values().data();
    const float quantum = connection_->quantum();
    const auto real = [quantum](Sum sum) {
        return quantum == 0 ? sum.real : float(sum.whole) * quantum;
    };
    workers_.run(desks_.goes, [&](int go, int worker) {
        Sum* const current = desks_.current(worker);
        std::fill_n(current, desks_.current_size(), Sum{});
        connection_->accumulate(go * desks_.at_once, {0, layout.extent.rows}, current);
        const int first = go * channels_at_once;
        const int end = std::min(first + channels_at_once, layout.extent.channels);
        for (int c = first; c < end; ++c)
            for (std::size_t p = 0; p < pixels; ++p)
                values[c * pixels + p] =
                    real(current[layout.index(c - first, p)]) + connection_->bias()[c];
    });
    return synops;
}

std::size_t WeightStage::bytes() const {
    return output.bytes() + connection_->bytes() + desks_.bytes();
}

PoolingStage::PoolingStage(Signal& source, const PoolingShape& shape, Watch& watch)
    : output(Extent(source.extent.channels, shape.rows.output, shape.columns.output),
             Signal::Values),
      source_(source), shape_(shape), columns_(shape.columns.output), watch_(watch) {
    for (int x = 0; x < shape.columns.output; ++x) columns_[x] = shape.columns.inputs(x);
    output.write_values();
}

std::unique_ptr<Stage> PoolingStage::fork(Workers& workers, const ForkedSignals& signals) const {
    return std::make_unique<PoolingStage>(signals.of(source_), shape_, workers.watch);
}

std::uint64_t PoolingStage::run(Current) {
    const Buffer<float>& from = source_.values();
    float* value = output.write_values().data();
    float* activity = output.write_activity().data();
    const Axis &rows = shape_.rows, &columns = shape_.columns;
    for (int c = 0; c < source_.extent.channels; ++c)
        for (int y = 0; y < rows.output; ++y) {
            const InputRange above = rows.inputs(y);
            for (int x = 0; x < columns.output; ++x) {
                float sum = 0, spikes = 0;
                const InputRange within = columns_[x];
                for (int row = above.begin; row < above.end; ++row) {
                    const std::size_t line =
                        (std::size_t(c) * rows.input + row) * columns.input;
                    for (std::size_t i = line + within.begin; i < line + within.end; ++i) {
                        sum += from[i];
                        spikes += source_.activity(i);
                    }
                }
                watch_.spend(std::uint64_t(above.end - above.begin) * (within.end - within.begin));
                *value++ = sum * shape_.scale;
                *activity++ = spikes;
            }
        }
    return 0;
}

ScalingStage::ScalingStage(Signal& source, const Values& scale)
    : output(source.extent, Signal::Values), source_(source) {
    Buffer<float> values(source.extent.size());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale[i];
    scale_ = std::make_shared<const Buffer<float>>(std::move(values));
    output.write_values();
}

std::unique_ptr<Stage> ScalingStage::fork(Workers&, const ForkedSignals& signals) const {
    return std::make_unique<ScalingStage>(*this, signals);
}

std::uint64_t ScalingStage::run(Current) {
    const Buffer<float>& from = source_.values();
    float* const value = output.write_values().data();
    float* const activity = output.write_activity().data();
    const Buffer<float>& scale = *scale_;
    for (std::size_t i = 0; i < scale.size(); ++i) {
        value[i] = from[i] * scale[i];
        activity[i] = source_.activity(i);
    }
    return 0;
}

}  // namespace mpsl
