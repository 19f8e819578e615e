// What one node hands to the next in one step, in the forms that the next may want.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "geometry.hpp"

namespace mpsl {

// Not zero: flat index channel·pixels + pixel, value, and how many spikes stand behind the value.
struct ActiveValue {
    std::uint32_t index;
    float value;
    float activity;
};

// Spikes are held as bits [pixel][word] of 64 channels, everything else as values
// [channel][row][column]. Forms that nobody wrote are derived when asked for.
class Signal {
public:
    enum Form { Bits, Values, Active };

    // `form`: that its writer will write; only spikes may be written as bits.
    Signal(Extent extent, Form form);

    // Writers: fill the form, then say which one it is.
    Buffer<float>& write_values();
    Buffer<float>& write_activity();
    std::vector<ActiveValue>& write_active();
    void wrote_bits() { form_ = Bits; derived_active_ = derived_values_ = false; }

    bool is_bits() const { return form_ == Bits; }
    const Buffer<float>& values();                     // [channel][pixel]
    const std::vector<ActiveValue>& active();
    float activity(std::size_t index);
    double density() const;  // of bits: the share of neurons that fire

    std::size_t bytes() const {
        return bits.bytes() + values_.bytes() + activity_.bytes() +
               active_.capacity() * sizeof(ActiveValue);
    }

    const Extent extent;
    const int words;
    Buffer<std::uint64_t> bits;

private:
    std::vector<ActiveValue>& emptied_active();

    Form form_;
    bool has_activity_ = false, derived_active_ = false, derived_values_ = false;
    Buffer<float> values_, activity_;
    std::vector<ActiveValue> active_;
};

}  // namespace mpsl
