#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace mpsl {

namespace {

[[noreturn]] void refuse(const std::string& what, std::size_t got, std::size_t expected) {
    throw std::invalid_argument(what + "; got " + std::to_string(got) + "; expected " +
                                std::to_string(expected));
}

void expect(const char* what, std::size_t got, std::size_t expected) {
    if (got != expected) refuse(what, got, expected);
}

void check_bias(const float* bias, std::size_t size, std::size_t expected) {
    expect("bias does not fit", size, expected);
    if (!all_finite(bias, size)) throw std::invalid_argument("bias is not finite");
}

Extent checked(Extent extent) {
    if (extent.channels < 1 || extent.rows < 1 || extent.columns < 1)
        throw std::invalid_argument("input has no values");
    return extent;
}

}  // namespace

Network::Network(Extent input, int threads)
    : kernels_(select_kernels()), workers_(threads), input_(checked(input), Signal::Active), tip_(&input_) {
    signals_.push_back(&input_);
    late_.emplace_back();
    input_.write_active();
    workers_.watch.begin();
}

void Network::check_building() const {
    if (finished_) throw std::invalid_argument("the network is already finished");
}

void Network::check_finished() const {
    if (!finished_) throw std::invalid_argument("the network is not finished");
}

void Network::check_running(std::size_t size) const {
    check_finished();
    expect("output has the wrong size", size, output_size());
}

Extent Network::seen() const {
    Extent extent = tip_->extent;
    if (pending_pool_) {
        extent.rows /= 2;
        extent.columns /= 2;
    }
    return extent;
}

// Makes stages of what was waiting to become part of the next node.
void Network::materialise() {
    if (pending_connection_) {
        auto stage = std::make_unique<WeightStage>(workers_, std::move(pending_connection_));
        tip_ = &stage->output;
        stages_.push_back(std::move(stage));
    }
    if (pending_pool_) {
        pending_pool_ = false;
        const Extent in = tip_->extent;
        const PoolingShape shape{make_axis(in.rows, 2, 2, 0, 0, 1),
                                 make_axis(in.columns, 2, 2, 0, 0, 1), pending_scale_};
        auto stage = std::make_unique<PoolingStage>(*tip_, shape, workers_.watch);
        tip_ = &stage->output;
        stages_.push_back(std::move(stage));
    }
}

// The source of weights; a waiting 2x2 pool goes with it.
Source Network::take_source() {
    const Source source{tip_, pending_pool_, pending_pool_ ? pending_scale_ : 1.0f};
    pending_pool_ = false;
    return source;
}

void Network::add_convolution(const ConvolutionOptions& o, Weights weight, const float* bias,
                              std::size_t bias_size) {
    check_building();
    check_weights(weight);
    if (pending_connection_ || o.groups != 1) materialise();
    ConvolutionShape shape;
    shape.input = seen();
    if (o.groups < 1 || o.filters < 1 || shape.input.channels % o.groups || o.filters % o.groups)
        throw std::invalid_argument("groups do not divide the channels");
    shape.groups = narrow<int>(o.groups);
    shape.rows = make_axis(shape.input.rows, o.kernel_rows, o.stride_rows, o.top, o.bottom,
                           o.dilation_rows);
    shape.columns = make_axis(shape.input.columns, o.kernel_columns, o.stride_columns, o.left,
                              o.right, o.dilation_columns);
    shape.output = Extent(o.filters, shape.rows.output, shape.columns.output);
    const int taps = narrow<int>(product(shape.rows.taps, shape.columns.taps), "kernel");
    expect("weight does not fit", weight.size,
           product(o.filters, shape.input.channels / o.groups, taps));
    check_bias(bias, bias_size, shape.output.channels);
    pending_connection_ = make_convolution(kernels_, take_source(), shape, weight, bias, workers_);
}

void Network::add_dense(std::int64_t out, Weights weight, const float* bias,
                        std::size_t bias_size) {
    check_building();
    check_weights(weight);
    if (pending_connection_) materialise();
    const Extent in = seen();
    if (out < 1) throw std::invalid_argument("weight has no rows");
    expect("weight does not fit", weight.size, product(in.size(), out));
    check_bias(bias, bias_size, out);
    pending_connection_ = make_dense(kernels_, take_source(), in, narrow<int>(out), weight, bias,
                                     workers_);
}

void Network::add_pooling(const PoolingOptions& o) {
    check_building();
    if (!std::isfinite(o.scale)) throw std::invalid_argument("scale is not finite");
    materialise();
    const Extent in = tip_->extent;
    const PoolingShape shape{
        make_axis(in.rows, o.kernel_rows, o.stride_rows, o.pad_rows, o.pad_rows, 1),
        make_axis(in.columns, o.kernel_columns, o.stride_columns, o.pad_columns, o.pad_columns, 1),
        o.scale};
    // A power of two folds into weights without rounding.
    if (tip_->is_bits() && o.kernel_rows == 2 && o.kernel_columns == 2 && o.stride_rows == 2 &&
        o.stride_columns == 2 && o.pad_rows == 0 && o.pad_columns == 0 &&
        is_power_of_two(o.scale)) {
        pending_pool_ = true;
        pending_scale_ = o.scale;
        return;
    }
    auto stage = std::make_unique<PoolingStage>(*tip_, shape, workers_.watch);
    tip_ = &stage->output;
    stages_.push_back(std::move(stage));
}

void Network::add_scaling(const Values& scale) {
    check_building();
    materialise();
    check_values("scale", scale, tip_->extent.size(), true);
    auto stage = std::make_unique<ScalingStage>(*tip_, scale);
    tip_ = &stage->output;
    stages_.push_back(std::move(stage));
}

void Network::check_values(const char* what, const Values& values, std::size_t size,
                           bool finite) {
    if (!values.data) return;
    if (values.size != 1) expect((what + std::string(" does not fit")).c_str(), values.size, size);
    const bool is_right = finite ? all_finite(values.data, values.size)
                                 : std::none_of(values.data, values.data + values.size,
                                                [](float value) { return std::isnan(value); });
    if (!is_right) throw std::invalid_argument(what + std::string(" is not finite"));
}

void Network::add_neurons(const NeuronParameters& parameters) {
    check_building();
    const Extent extent = pending_connection_ ? pending_connection_->layout.extent : seen();
    const std::size_t size = extent.size();
    check_values("decay", parameters.decay, size, true);
    // One that does not fire has none, which infinity says.
    const bool fires = parameters.kind != FireJob::Integrating;
    check_values("threshold", parameters.threshold, size, fires);
    check_values("reset value", parameters.reset_value, size, true);
    check_values("amount of a spike", parameters.drop, size, true);
    check_values("gain", parameters.gain, size, true);
    check_values("leak", parameters.leak, size, true);
    check_values("synaptic decay", parameters.synaptic_decay, size, true);
    check_values("synaptic gain", parameters.synaptic_gain, size, true);
    check_values("start of v", parameters.initial, size, true);
    std::unique_ptr<Connection> connection = std::move(pending_connection_);
    if (!connection) {
        materialise();
        connection = make_identity({tip_, false, 1.0f}, workers_.watch);
    }
    auto stage = std::make_unique<PopulationStage>(kernels_, workers_, std::move(connection),
                                                   parameters);
    if (populations_.empty()) first_population_stage_ = stages_.size();
    populations_.push_back(stage.get());
    tip_ = &stage->population.output();
    stages_.push_back(std::move(stage));
}

void Network::add_delay(const std::int32_t* steps, std::size_t size) {
    check_building();
    materialise();
    is_chain_ = false;
    expect("delay does not fit", size, tip_->extent.size());
    auto stage = std::make_unique<DelayStage>(*tip_, steps);
    tip_ = &stage->output;
    delays_.push_back(stage.get());
    stages_.push_back(std::move(stage));
}

void Network::finish() {
    check_building();
    materialise();
    if (populations_.empty()) throw std::invalid_argument("the network has no neurons");
    for (std::size_t i = 0; i < late_.size(); ++i)
        if (late_[i] && !late_[i]->is_bound())
            throw std::invalid_argument("a signal of the step before follows nothing");
    if (tip_ == &populations_.back()->population.output())
        populations_.back()->population.keep_membrane();
    else output_ = tip_;
    finished_ = true;
}

std::size_t Network::output_size() const {
    if (output_) return output_->extent.size();
    return populations_.empty() ? 0 : populations_.back()->population.size();
}

void Network::reset() {
    for (PopulationStage* stage : populations_) stage->population.reset();
    if (!is_chain_) rest();
    steps_ = synops_ = 0;
}

void Network::rest() {
    for (const auto& stage : stages_) stage->rest();
    for (const auto& late : late_)
        if (late) late->rest();
}

void Network::load_frame(const float* frame) {
    if (nonzero_.empty()) nonzero_ = Buffer<std::uint32_t>(input_size());
    const std::size_t count = kernels_.find_nonzero(frame, input_size(), nonzero_.data());
    for (std::size_t i = 0; i < count; ++i)
        if (!std::isfinite(frame[nonzero_[i]]))
            throw std::invalid_argument("input is not finite; got " +
                                        std::to_string(frame[nonzero_[i]]) + " at " +
                                        std::to_string(nonzero_[i]));
    std::vector<ActiveValue>& active = input_.write_active();
    for (std::size_t i = 0; i < count; ++i) active.push_back({nonzero_[i], frame[nonzero_[i]], 1});
}

// Runs `work`; where that ends early the network is at rest afterwards.
template <class Work>
void Network::guarded(Work work) {
    try {
        work();
    } catch (...) {
        rest();
        steps_ = synops_ = 0;
        throw;
    }
}

void Network::advance(Current current, float* output) {
    if (current != Current::Reuse) {
        held_synops_ = 0;
        for (std::size_t i = 0; i < first_population_stage_; ++i)
            held_synops_ += stages_[i]->run(Current::Compute);
    }
    synops_ += held_synops_ + stages_[first_population_stage_]->run(current);
    for (std::size_t i = first_population_stage_ + 1; i < stages_.size(); ++i)
        synops_ += stages_[i]->run(Current::Compute);
    if (!output_) {
        populations_.back()->population.copy_output(output);
    } else {
        const Buffer<float>& values = output_->values();
        std::copy_n(values.data(), values.size(), output);
    }
    for (const auto& late : late_)
        if (late) late->take();
    ++steps_;
}

void Network::step(const float* frame, std::size_t size, float* output, std::size_t output_size) {
    check_running(output_size);
    expect("frame has the wrong size", size, input_size());
    load_frame(frame);
    guarded([&] { advance(Current::Compute, output); });
}

void Network::step_sparse(const std::int32_t* address, const float* value, std::size_t count,
                          float* output, std::size_t output_size) {
    check_running(output_size);
    for (std::size_t i = 0; i < count; ++i) {
        if (address[i] < 0 || std::size_t(address[i]) >= input_size())
            throw std::invalid_argument("address outside the input; got " +
                                        std::to_string(address[i]) + "; expected 0 … " +
                                        std::to_string(input_size() - 1));
        if (i && address[i] <= address[i - 1])
            throw std::invalid_argument("addresses are not in ascending order; got " +
                                        std::to_string(address[i]) + " after " +
                                        std::to_string(address[i - 1]));
        if (!std::isfinite(value[i])) throw std::invalid_argument("input is not finite");
    }
    std::vector<ActiveValue>& active = input_.write_active();
    for (std::size_t i = 0; i < count; ++i)
        if (value[i] != 0) active.push_back({std::uint32_t(address[i]), value[i], 1});
    guarded([&] { advance(Current::Compute, output); });
}

void Network::run(const float* frames, std::size_t size, std::size_t steps, bool constant,
                  float* output, std::size_t output_size) {
    const std::size_t outputs = this->output_size();
    check_running(outputs);
    expect("output has the wrong size", output_size, product(outputs, steps));
    expect("frames have the wrong size", size,
           product(input_size(), constant && steps ? 1 : steps));
    reset();
    guarded([&] {
        for (std::size_t t = 0; t < steps; ++t) {
            workers_.watch.check();
            if (!constant || t == 0) load_frame(frames + t * input_size());
            // Around a loop the current changes although the input does not.
            advance(!constant || !is_chain_ ? Current::Compute : t ? Current::Reuse : Current::ComputeAndHold,
                    output + t * outputs);
        }
    });
}

void Network::replace_weights(std::size_t index, Weights weight) {
    check_finished();
    check_weights(weight);
    Connection& connection = populations_.at(index)->connection();
    const std::size_t count = connection.replaceable();
    if (!count) throw std::invalid_argument("no float32 weights stand before these neurons");
    expect("weight does not fit", weight.size, count);
    connection.replace(weight);
}

std::vector<std::uint64_t> Network::fired() const {
    std::vector<std::uint64_t> found;
    for (const PopulationStage* stage : populations_) found.push_back(stage->population.fired());
    return found;
}

std::vector<double> Network::crossovers() const {
    std::vector<double> found;
    for (const PopulationStage* stage : populations_) found.push_back(stage->crossover());
    return found;
}

std::size_t Network::bytes() const {
    std::size_t bytes = input_.bytes() + nonzero_.bytes();
    for (const auto& stage : stages_) bytes += stage->bytes();
    for (const auto& late : late_)
        if (late) bytes += late->bytes();
    return bytes;
}

}  // namespace mpsl
