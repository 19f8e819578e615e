#include "weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace mpsl {

bool is_power_of_two(float value) {
    int exponent;
    return value > 0 && std::frexp(value, &exponent) == 0.5f;
}

// Without a way out of the loop, so that it is done many at a time.
bool all_finite(const float* values, std::size_t size) {
    constexpr std::uint32_t kExponent = 0x7f800000;
    std::uint32_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        wrong |= (bits & kExponent) == kExponent;
    }
    return !wrong;
}

void check_weights(const Weights& weight) {
    if (!weight.is_int8()) {
        if (!all_finite(weight.real, weight.size))
            throw std::invalid_argument("weight is not finite");
        return;
    }
    if (!is_power_of_two(weight.quantum))
        throw std::invalid_argument("quantum is no power of two");
    if (std::count(weight.whole, weight.whole + weight.size, std::int8_t(-128)))
        throw std::invalid_argument("int8 weight is below -127");
}

}  // namespace mpsl
