// What a caller hands in as weights: float32, or int8 in multiples of a power of two.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mpsl {

struct Weights {
    const float* real;          // null where `whole` is given
    const std::int8_t* whole;
    float quantum;              // weight = whole · quantum
    std::size_t size;

    bool is_int8() const { return whole; }
    float at(std::size_t i) const { return real ? real[i] : float(whole[i]) * quantum; }
};

inline Weights float_weights(const float* values, std::size_t size) {
    return {values, nullptr, 1.0f, size};
}

inline Weights int8_weights(const std::int8_t* values, float quantum, std::size_t size) {
    return {nullptr, values, quantum, size};
}

bool is_power_of_two(float value);
bool all_finite(const float* values, std::size_t size);

// Throws std::invalid_argument: a weight is not finite, or out of an int8 model's range.
void check_weights(const Weights& weight);

}  // namespace mpsl
