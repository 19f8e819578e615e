// The only arithmetic on sizes. A product or a number that does not fit throws; nothing wraps.
//
// What is checked once, when a layer is made, may be multiplied plainly afterwards: Extent, Axis and
// BlockLayout hold only what was checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace mpsl {

// Values of one signal: a place in it is an int32.
constexpr std::size_t kLargestSignal = std::numeric_limits<std::int32_t>::max();

// Rows or columns of a map with its padding, and steps through it: their sums fit an int32.
constexpr std::int64_t kLargestAxis = std::int64_t(1) << 30;

[[noreturn]] void refuse_size(const char* what);  // geometry.cpp

// A whole number in another type; throws std::length_error where that does not hold it.
template <class To, class From>
To narrow(From value, const char* what = "size") {
    static_assert(std::is_integral<To>::value && std::is_integral<From>::value, "whole numbers");
    const To result = static_cast<To>(value);
    if (static_cast<From>(result) != value || (result < To{}) != (value < From{}))
        refuse_size(what);
    return result;
}

// Of whole numbers ≥ 0; throws std::length_error where std::size_t does not hold it.
inline std::size_t product() { return 1; }

template <class First, class... Rest>
std::size_t product(First first, Rest... rest) {
    std::size_t result;
    if (__builtin_mul_overflow(narrow<std::size_t>(first), product(rest...), &result))
        refuse_size("size");
    return result;
}

inline std::size_t sum(std::size_t a, std::size_t b) {
    std::size_t result;
    if (__builtin_add_overflow(a, b, &result)) refuse_size("size");
    return result;
}

// So many times `unit` hold `size`.
constexpr std::size_t units(std::size_t size, std::size_t unit) {
    return size / unit + (size % unit != 0);
}

inline std::size_t rounded_up(std::size_t size, std::size_t unit) {
    return product(units(size, unit), unit);
}

}  // namespace mpsl
