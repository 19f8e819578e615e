#include "branches.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "network.hpp"

namespace mpsl {

namespace {

Extent not_empty(Extent extent) {
    if (!extent.size()) throw std::invalid_argument("signal has no values");
    return extent;
}

}  // namespace

SumStage::SumStage(std::vector<Signal*> sources, Extent extent)
    : output(extent, Signal::Values), sources_(std::move(sources)) {
    for (const Signal* source : sources_)
        if (source->extent.size() != extent.size())
            throw std::invalid_argument("signals of a sum differ in size");
    output.write_values();
}

std::unique_ptr<Stage> SumStage::fork(Workers&, const ForkedSignals& signals) const {
    std::vector<Signal*> sources;
    for (const Signal* source : sources_) sources.push_back(&signals.of(*source));
    return std::make_unique<SumStage>(std::move(sources), output.extent);
}

std::uint64_t SumStage::run(Current) {
    Buffer<float>& values = output.write_values();
    Buffer<float>& activity = output.write_activity();
    values.clear();
    activity.clear();
    for (Signal* source : sources_)
        for (const ActiveValue& one : source->active()) {
            values[one.index] += one.value;
            activity[one.index] += one.activity;
        }
    return 0;
}

DelayStage::DelayStage(Signal& source, const std::int32_t* steps)
    : output(source.extent, Signal::Active), source_(source) {
    Buffer<std::int32_t> kept(source.extent.size());
    std::int32_t longest = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
        if (steps[i] < 0) throw std::invalid_argument("delay is below 0");
        kept[i] = steps[i];
        longest = std::max(longest, steps[i]);
    }
    steps_ = std::make_shared<const Buffer<std::int32_t>>(std::move(kept));
    arriving_.resize(std::size_t(longest) + 1);
    output.write_active();
}

std::unique_ptr<Stage> DelayStage::fork(Workers&, const ForkedSignals& signals) const {
    return std::make_unique<DelayStage>(*this, signals);
}

std::uint64_t DelayStage::run(Current) {
    const Buffer<std::int32_t>& steps = *steps_;
    for (const ActiveValue& one : source_.active())
        arriving_[(now_ + steps[one.index]) % arriving_.size()].push_back(
            {one.index, one.value, 1});
    std::vector<ActiveValue>& due = arriving_[now_];
    // They left in different steps.
    std::sort(due.begin(), due.end(),
              [](const ActiveValue& a, const ActiveValue& b) { return a.index < b.index; });
    std::vector<ActiveValue>& active = output.write_active();
    active.assign(due.begin(), due.end());
    due.clear();
    now_ = (now_ + 1) % arriving_.size();
    return 0;
}

void DelayStage::rest() {
    for (std::vector<ActiveValue>& values : arriving_) values.clear();
    output.write_active();
    now_ = 0;
}

std::size_t DelayStage::bytes() const {
    std::size_t bytes = output.bytes() + steps_->bytes();
    for (const std::vector<ActiveValue>& values : arriving_)
        bytes += sizeof values + values.capacity() * sizeof(ActiveValue);
    return bytes;
}

void DelayStage::copy_state(float* to) const {
    std::fill_n(to, state_size(), 0.0f);
    for (std::size_t step = 0; step + 1 < arriving_.size(); ++step)
        for (const ActiveValue& one : arriving_[(now_ + step) % arriving_.size()])
            to[step * steps_->size() + one.index] = one.value;
}

void DelayStage::restore(const float* from) {
    rest();
    for (std::size_t step = 0; step + 1 < arriving_.size(); ++step)
        for (std::size_t i = 0; i < steps_->size(); ++i, ++from)
            if (*from != 0) arriving_[step].push_back({std::uint32_t(i), *from, 1});
}

LateSignal::LateSignal(Extent extent, bool spikes)
    : output(extent, spikes ? Signal::Bits : Signal::Active), spikes_(spikes) {
    rest();
}

std::unique_ptr<LateSignal> LateSignal::fork() const {
    return std::make_unique<LateSignal>(output.extent, spikes_);
}

void LateSignal::follow(Signal& source) {
    if (source.is_bits() != spikes_ || source.extent.channels != output.extent.channels ||
        source.extent.pixels() != output.extent.pixels())
        throw std::invalid_argument("signal of the step before is of another kind");
    source_ = &source;
}

void LateSignal::take() {
    if (spikes_) {
        std::memcpy(output.bits.data(), source_->bits.data(), source_->bits.size() * 8);
        output.wrote_bits();
        return;
    }
    const std::vector<ActiveValue>& from = source_->active();
    std::vector<ActiveValue>& active = output.write_active();
    active.assign(from.begin(), from.end());
}

void LateSignal::copy_state(float* to) {
    const std::size_t size = output.extent.size();
    std::fill_n(to, state_size(), 0.0f);
    for (const ActiveValue& one : output.active()) {
        to[one.index] = one.value;
        to[size + one.index] = one.activity;
    }
}

void LateSignal::restore(const float* from) {
    rest();
    const std::size_t size = output.extent.size(), pixels = output.extent.pixels();
    std::vector<ActiveValue>* const active = spikes_ ? nullptr : &output.write_active();
    for (std::size_t i = 0; i < size; ++i) {
        if (from[i] == 0) continue;
        if (active) active->push_back({std::uint32_t(i), from[i], from[size + i]});
        else output.bits[i % pixels * output.words + i / pixels / 64] |= std::uint64_t(1)
                                                                       << (i / pixels % 64);
    }
    if (spikes_) output.wrote_bits();
}

void LateSignal::rest() {
    if (!spikes_) {
        output.write_active();
        return;
    }
    output.bits.clear();
    output.wrote_bits();
}

std::size_t Network::mark() {
    check_building();
    materialise();
    is_chain_ = false;
    signals_.push_back(tip_);
    late_.emplace_back();
    return signals_.size() - 1;
}

std::size_t Network::add_late(Extent extent, bool spikes) {
    check_building();
    is_chain_ = false;
    late_.push_back(std::make_unique<LateSignal>(not_empty(extent), spikes));
    signals_.push_back(&late_.back()->output);
    return signals_.size() - 1;
}

void Network::follow(std::size_t late, std::size_t source) {
    check_building();
    if (!late_.at(late)) throw std::invalid_argument("signal is none of the step before");
    late_[late]->follow(*signals_.at(source));
}

void Network::see(const std::vector<std::size_t>& sources, Extent extent) {
    check_building();
    materialise();
    is_chain_ = false;
    std::vector<Signal*> found;
    for (std::size_t source : sources) found.push_back(signals_.at(source));
    if (found.empty()) throw std::invalid_argument("a node sees nothing");
    if (found.size() == 1) {
        tip_ = found[0];
        return;
    }
    auto stage = std::make_unique<SumStage>(std::move(found), not_empty(extent));
    tip_ = &stage->output;
    stages_.push_back(std::move(stage));
}

}  // namespace mpsl
