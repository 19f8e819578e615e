#include "arrays.hpp"

#include <cstdint>
#include <stdexcept>
#include <string>

#include "sizes.hpp"

namespace nb = nanobind;

namespace mpsl {

namespace {

std::string type_name(nb::dlpack::dtype type) {
    using Code = nb::dlpack::dtype_code;
    const Code code = Code(type.code);
    const char* const kind = code == Code::Float  ? "float"
                             : code == Code::Int  ? "int"
                             : code == Code::UInt ? "uint"
                             : code == Code::Bool ? "bool"
                                                  : "another type of ";
    return kind + std::to_string(type.bits);
}

[[noreturn]] void refuse(const char* what, const std::string& why) {
    throw std::invalid_argument(what + why);
}

bool is_contiguous(const ArrayOut& array) {
    std::int64_t step = 1;
    for (std::size_t axis = array.ndim(); array.size() && axis-- > 0;) {
        if (array.shape(axis) > 1 && array.stride(axis) != step) return false;
        step *= narrow<std::int64_t>(array.shape(axis));
    }
    return true;
}

}  // namespace

void detail::check_array(const ArrayOut& array, nb::dlpack::dtype type, std::size_t alignment,
                         const char* what) {
    if (!(array.dtype() == type))
        refuse(what, " has the wrong type; got " + type_name(array.dtype()) + "; expected " +
                         type_name(type));
    if (array.device_type() != nb::device::cpu::value) refuse(what, " is on another device");
    if (!is_contiguous(array)) refuse(what, " is not contiguous");
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignment) refuse(what, " is not aligned");
}

void check_axes(const Array& array, std::size_t axes, const char* what) {
    if (array.ndim() != axes)
        refuse(what, " has the wrong number of axes; got " + std::to_string(array.ndim()) +
                         "; expected " + std::to_string(axes));
}

}  // namespace mpsl
