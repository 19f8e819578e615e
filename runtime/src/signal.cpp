#include "signal.hpp"

namespace mpsl {

Signal::Signal(Extent extent, Form form)
    : extent(extent), words(narrow<int>(units(extent.channels, 64))),
      bits(form == Bits ? product(extent.pixels(), words) : 0), form_(form) {}

Buffer<float>& Signal::write_values() {
    if (values_.empty()) values_ = Buffer<float>(extent.size());
    form_ = Values;
    has_activity_ = derived_active_ = false;
    return values_;
}

Buffer<float>& Signal::write_activity() {
    if (activity_.empty()) activity_ = Buffer<float>(extent.size());
    has_activity_ = true;
    return activity_;
}

std::vector<ActiveValue>& Signal::write_active() {
    form_ = Active;
    has_activity_ = derived_values_ = false;
    return emptied_active();
}

// With room for all that can be in it: no more is ever taken.
std::vector<ActiveValue>& Signal::emptied_active() {
    active_.clear();
    active_.reserve(extent.size());
    return active_;
}

const Buffer<float>& Signal::values() {
    if (form_ == Values || derived_values_) return values_;
    if (values_.empty()) values_ = Buffer<float>(extent.size());
    values_.clear();
    for (const ActiveValue& one : active()) values_[one.index] += one.value;
    derived_values_ = true;
    return values_;
}

const std::vector<ActiveValue>& Signal::active() {
    if (form_ == Active || derived_active_) return active_;
    emptied_active();
    const std::size_t pixels = extent.pixels();
    if (form_ == Bits) {
        for (std::size_t p = 0; p < pixels; ++p)
            for (int w = 0; w < words; ++w)
                for (std::uint64_t word = bits[p * words + w]; word; word &= word - 1) {
                    const std::size_t channel = w * 64 + __builtin_ctzll(word);
                    active_.push_back({std::uint32_t(channel * pixels + p), 1.0f, 1.0f});
                }
    } else {
        for (std::size_t i = 0; i < extent.size(); ++i)
            if (values_[i] != 0)
                active_.push_back({std::uint32_t(i), values_[i], has_activity_ ? activity_[i] : 1});
    }
    derived_active_ = true;
    return active_;
}

double Signal::density() const {
    std::size_t spikes = 0;
    for (std::size_t i = 0; i < bits.size(); ++i) spikes += __builtin_popcountll(bits[i]);
    return double(spikes) / double(extent.size());
}

// None behind a value that is 0: no weights see it.
float Signal::activity(std::size_t index) {
    const bool is_zero = values()[index] == 0;
    return is_zero ? 0 : has_activity_ ? activity_[index] : 1;
}

}  // namespace mpsl
