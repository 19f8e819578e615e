#include "population.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace mpsl {

namespace {

bool all_equal(const Values& values) {
    return std::all_of(values.data, values.data + values.size,
                       [&](float value) { return value == values[0]; });
}

const float* data_or_null(const std::shared_ptr<const Buffer<float>>& buffer,
                          std::size_t offset) {
    return buffer ? buffer->data() + offset : nullptr;
}

}  // namespace

Population::Population(const Kernels& kernels, BlockLayout layout, const NeuronParameters& given)
    : kernels_(kernels), layout_(layout), kind_(given.kind), reset_(given.reset),
      many_(given.many && given.kind == FireJob::Spiking),
      state_(layout.size()), output_(layout.extent, Signal::Bits) {
    // Channels that fill up the last block must stay silent: fire_uniform lets them rest at U = 0
    // and needs a threshold above that.
    const Values drop = given.drop.data ? given.drop : given.threshold;
    const bool subtracts = reset_ == FireJob::Subtract || reset_ == FireJob::Undecayed;
    uniform_ = kind_ == FireJob::Spiking && !many_ && !given.gain.data &&
               !given.synaptic_decay.data && all_equal(given.decay) &&
               all_equal(given.threshold) && given.threshold[0] > 0 &&
               all_equal(subtracts ? drop : given.reset_value);
    if (uniform_) {
        decay_ = given.decay[0];
        threshold_ = given.threshold[0];
        drop_ = drop[0];
        reset_value_ = given.reset_value[0];
    } else {
        decays_ = spread(given.decay, 0);
        thresholds_ = spread(given.threshold, std::numeric_limits<float>::infinity());
        reset_values_ = spread(given.reset_value, 0);
        if (given.drop.data) drops_ = spread(given.drop, 1);
        if (many_) counts_ = Buffer<float>(layout.size());
        if (given.gain.data) {
            gains_ = spread(given.gain, 0);
            leaks_ = spread(given.leak, 0);
        }
        if (given.synaptic_decay.data) {
            synaptic_decays_ = spread(given.synaptic_decay, 0);
            synaptic_gains_ = spread(given.synaptic_gain, 0);
            synapse_ = Buffer<float>(layout.size());
        }
    }
    if (given.initial.data) {
        initial_ = spread(given.initial, 0);
        reset();
    }
    if (gives_values()) output_.write_values();
}

Population::Shared Population::spread(const Values& values, float padding) const {
    Buffer<float> result(layout_.size());
    std::fill_n(result.data(), result.size(), padding);
    const std::size_t pixels = layout_.extent.pixels();
    for (int c = 0; c < layout_.extent.channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p)
            result[layout_.index(c, p)] = values[c * pixels + p];
    return std::make_shared<const Buffer<float>>(std::move(result));
}

void Population::reset() {
    if (initial_) std::copy_n(initial_->data(), initial_->size(), state_.data());
    else state_.clear();
    synapse_.clear();
    membrane_.clear();
    counts_.clear();
    output_.bits.clear();
}

void Population::fire(int block, RowRange rows, void* current, float quantum, const float* bias,
                      bool clear) {
    const std::size_t offset = block * layout_.block_size() + rows.begin * layout_.row_size();
    const std::size_t first_pixel = std::size_t(rows.begin) * layout_.extent.columns;
    FireJob job{};
    job.current = current;
    job.quantum = quantum;
    job.clear_current = clear;
    job.bias = bias;
    job.state = state_.data() + offset;
    job.membrane = membrane_.empty() ? nullptr : membrane_.data() + offset;
    job.spikes = output_.bits.data() + first_pixel * output_.words + block;
    job.spike_stride = output_.words;
    job.pixels = std::size_t(rows.count()) * layout_.extent.columns;
    job.width = layout_.width;
    job.reset = reset_;
    if (uniform_) {
        job.decay = decay_;
        job.threshold = threshold_;
        job.drop = drop_;
        job.reset_value = reset_value_;
        kernels_.fire_uniform(job);
        return;
    }
    job.kind = kind_;
    job.decays = data_or_null(decays_, offset);
    job.thresholds = data_or_null(thresholds_, offset);
    job.drops = drops_ ? drops_->data() + offset : job.thresholds;
    job.counts = counts_.empty() ? nullptr : counts_.data() + offset;
    job.reset_values = data_or_null(reset_values_, offset);
    job.gains = data_or_null(gains_, offset);
    job.leaks = data_or_null(leaks_, offset);
    job.synaptic_decays = data_or_null(synaptic_decays_, offset);
    job.synaptic_gains = data_or_null(synaptic_gains_, offset);
    job.synapse = synapse_.empty() ? nullptr : synapse_.data() + offset;
    kernels_.fire_each(job);
}

void Population::finish_step() {
    if (!gives_values()) return output_.wrote_bits();
    copy_blocks(values(), output_.write_values().data());
    if (many_) copy_blocks(values(), output_.write_activity().data());
}

void Population::keep_membrane() {
    if (membrane_.empty()) membrane_ = Buffer<float>(layout_.size());
}

void Population::copy_blocks(const Buffer<float>& from, float* to) const {
    const std::size_t pixels = layout_.extent.pixels();
    for (int c = 0; c < layout_.extent.channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p) *to++ = from[layout_.index(c, p)];
}

void Population::copy_spikes(std::uint8_t* to) const {
    const std::size_t pixels = layout_.extent.pixels();
    // Of many the bits say which fired.
    for (int c = 0; c < layout_.extent.channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p)
            *to++ = output_.bits[p * output_.words + c / 64] >> (c % 64) & 1;
}

std::uint64_t Population::fired() const {
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < output_.bits.size(); ++i)
        number += std::uint64_t(__builtin_popcountll(output_.bits[i]));
    return number;
}

void Population::copy_membrane(float* to) const { copy_blocks(membrane_, to); }

void Population::copy_output(float* to) const {
    if (gives_values()) return copy_blocks(values(), to);
    const std::size_t pixels = layout_.extent.pixels();
    for (int c = 0; c < layout_.extent.channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p)
            *to++ = float(output_.bits[p * output_.words + c / 64] >> (c % 64) & 1);
}

void Population::fill_blocks(const float* from, Buffer<float>& to) const {
    const std::size_t pixels = layout_.extent.pixels();
    for (int c = 0; c < layout_.extent.channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p) to[layout_.index(c, p)] = *from++;
}

void Population::copy_state(float* V, float* J) const {
    copy_blocks(state_, V);
    if (has_synapse()) copy_blocks(synapse_, J);
}

void Population::restore(const float* V, const float* J, const std::uint8_t* S) {
    fill_blocks(V, state_);
    if (has_synapse()) fill_blocks(J, synapse_);
    output_.bits.clear();
    const std::size_t pixels = layout_.extent.pixels();
    for (int c = 0; c < layout_.extent.channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p, ++S) {
            output_.bits[p * output_.words + c / 64] |= std::uint64_t(*S != 0) << (c % 64);
            if (many_) counts_[layout_.index(c, p)] = float(*S != 0);
        }
    finish_step();
}

void Population::restore_membrane(const float* U) { fill_blocks(U, membrane_); }

std::size_t Population::bytes() const {
    return shared_bytes() + synapse_.bytes() + counts_.bytes() + state_.bytes() +
           membrane_.bytes() + output_.bytes();
}

std::size_t Population::shared_bytes() const {
    std::size_t bytes = 0;
    for (const Shared* one : {&decays_, &thresholds_, &drops_, &reset_values_, &gains_, &leaks_,
                              &synaptic_decays_, &synaptic_gains_, &initial_})
        if (*one) bytes += (*one)->bytes();
    return bytes;
}

}  // namespace mpsl
