#include "stages.hpp"

#include <algorithm>

namespace mpsl {

PopulationStage::PopulationStage(const Kernels& kernels, std::unique_ptr<Connection> connection,
                                 const NeuronParameters& parameters)
    : population(kernels, connection->layout, parameters), connection_(std::move(connection)),
      current_(connection_->layout.block_size() * connection_->blocks_at_once()) {}

std::uint64_t PopulationStage::run(Current mode) {
    const BlockLayout& layout = connection_->layout;
    const int at_once = connection_->blocks_at_once();
    if (mode != Current::Reuse) {
        const std::uint64_t synops = connection_->prepare();
        if (mode == Current::ComputeAndHold) {
            if (held_.empty()) {
                const int goes = (layout.blocks + at_once - 1) / at_once;
                held_ = Buffer<Sum>(layout.block_size() * at_once * goes);
            }
            held_.clear();
            held_synops_ = synops;
            for (int block = 0; block < layout.blocks; block += at_once)
                connection_->accumulate(block, held_.data() + block * layout.block_size());
        } else {
            for (int block = 0; block < layout.blocks; block += at_once) {
                connection_->accumulate(block, current_.data());
                for (int i = block; i < std::min(block + at_once, layout.blocks); ++i)
                    fire(i, current_.data() + (i - block) * layout.block_size(), true);
            }
            population.finish_step();
            return synops;
        }
    }
    for (int block = 0; block < layout.blocks; ++block)
        fire(block, held_.data() + block * layout.block_size(), false);
    population.finish_step();
    return held_synops_;
}

void PopulationStage::fire(int block, Sum* current, bool clear) {
    population.fire(block, current, connection_->quantum(),
                    connection_->bias.data() + block * connection_->layout.width, clear);
}

std::size_t PopulationStage::bytes() const {
    return population.bytes() + connection_->bytes() + current_.bytes() + held_.bytes();
}

WeightStage::WeightStage(std::unique_ptr<Connection> connection)
    : output(connection->layout.extent), connection_(std::move(connection)),
      current_(connection_->layout.block_size() * connection_->blocks_at_once()) {
    output.write_values();
}

std::uint64_t WeightStage::run(Current) {
    const BlockLayout& layout = connection_->layout;
    const std::size_t pixels = layout.extent.pixels();
    const int channels_at_once = connection_->blocks_at_once() * layout.width;
    const std::uint64_t synops = connection_->prepare();
    float* const values = output.write_values().data();
    const float quantum = connection_->quantum();
    const auto real = [quantum](Sum sum) {
        return quantum == 0 ? sum.real : float(sum.whole) * quantum;
    };
    for (int first = 0; first < layout.extent.channels; first += channels_at_once) {
        current_.clear();
        connection_->accumulate(first / layout.width, current_.data());
        const int end = std::min(first + channels_at_once, layout.extent.channels);
        for (int c = first; c < end; ++c)
            for (std::size_t p = 0; p < pixels; ++p)
                values[c * pixels + p] =
                    real(current_[layout.index(c - first, p)]) + connection_->bias[c];
    }
    return synops;
}

std::size_t WeightStage::bytes() const {
    return output.bytes() + connection_->bytes() + current_.bytes();
}

PoolingStage::PoolingStage(Signal& source, const PoolingShape& shape)
    : output(Extent{source.extent.channels, shape.rows.output, shape.columns.output}),
      source_(source), shape_(shape) {
    output.write_values();
}

std::uint64_t PoolingStage::run(Current) {
    const Buffer<float>& from = source_.values();
    float* value = output.write_values().data();
    float* activity = output.write_activity().data();
    const Axis &rows = shape_.rows, &columns = shape_.columns;
    for (int c = 0; c < source_.extent.channels; ++c)
        for (int y = 0; y < rows.output; ++y)
            for (int x = 0; x < columns.output; ++x) {
                float sum = 0, spikes = 0;
                for (int i = 0; i < rows.taps; ++i)
                    for (int j = 0; j < columns.taps; ++j) {
                        const int row = y * rows.stride + rows.input_offset(i);
                        const int column = x * columns.stride + columns.input_offset(j);
                        if (row < 0 || row >= rows.input || column < 0 || column >= columns.input)
                            continue;
                        const std::size_t index =
                            (std::size_t(c) * rows.input + row) * columns.input + column;
                        sum += from[index];
                        spikes += source_.activity(index);
                    }
                *value++ = sum * shape_.scale;
                *activity++ = spikes;
            }
    return 0;
}

ScalingStage::ScalingStage(Signal& source, const float* scale)
    : output(source.extent), source_(source), scale_(source.extent.size()) {
    std::copy_n(scale, scale_.size(), scale_.data());
    output.write_values();
}

std::uint64_t ScalingStage::run(Current) {
    const Buffer<float>& from = source_.values();
    float* const value = output.write_values().data();
    float* const activity = output.write_activity().data();
    for (std::size_t i = 0; i < scale_.size(); ++i) {
        value[i] = from[i] * scale_[i];
        activity[i] = source_.activity(i);
    }
    return 0;
}

}  // namespace mpsl
