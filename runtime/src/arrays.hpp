// Arrays of the caller, taken as they are or refused: never converted in silence.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>

namespace mpsl {

using Array = nanobind::ndarray<nanobind::ro>;  // that is read
using ArrayOut = nanobind::ndarray<>;           // that is written

namespace detail {
void check_array(const ArrayOut& array, nanobind::dlpack::dtype type, std::size_t alignment,
                 const char* what);
}

// The values of an array of exactly this type, one after the other in memory. Throws
// std::invalid_argument for any other.
template <class T>
const T* values_of(const Array& array, const char* what) {
    detail::check_array(ArrayOut(array), nanobind::dtype<T>(), alignof(T), what);
    return static_cast<const T*>(array.data());
}

template <class T>
T* values_of(const ArrayOut& array, const char* what) {
    detail::check_array(array, nanobind::dtype<T>(), alignof(T), what);
    return static_cast<T*>(array.data());
}

// The same of an array with so many axes.
void check_axes(const Array& array, std::size_t axes, const char* what);

}  // namespace mpsl
