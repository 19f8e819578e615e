#include "bind.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "evt.hpp"
#include "records.hpp"
#include "text.hpp"

namespace nb = nanobind;

namespace mpsl::decode {

namespace {

using Input = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
nb::object array_of(Column<T>& column, std::size_t size) {
    T* data = column.release();
    const nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size}, owner));
}

template <class Work>
nb::tuple decoded(Decoder& decoder, Work work) {
    Columns out;
    {
        const nb::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(decoder.mutex);
        work(out);
        out.shrink();
    }
    return nb::make_tuple(array_of(out.t, out.size), array_of(out.x, out.size),
                          array_of(out.y, out.size), array_of(out.p, out.size));
}

nb::tuple feed(Decoder& decoder, Input data) {
    return decoded(decoder,
                   [&](Columns& out) { decoder.feed(data.data(), data.size(), out); });
}

nb::tuple finish(Decoder& decoder) {
    return decoded(decoder, [&](Columns& out) { decoder.finish(out); });
}

}  // namespace

void bind(nb::module_& m) {
    nb::class_<Decoder>(m, "EventDecoder")
        .def("feed", &feed, nb::arg("data"))
        .def("finish", &finish)
        .def_prop_ro("pending", &Decoder::pending)
        .def_ro("before_time", &Decoder::before_time)
        .def_ro("before_address", &Decoder::before_address)
        .def_ro("without_clock", &Decoder::without_clock)
        .def_ro("outside", &Decoder::outside)
        .def_ro("unknown", &Decoder::unknown)
        .def_ro("is_lost", &Decoder::is_lost);
    nb::class_<Evt2, Decoder>(m, "Evt2").def(nb::init<>());
    nb::class_<Evt21, Decoder>(m, "Evt21").def(nb::init<bool>(), nb::arg("swapped"));
    nb::class_<Evt3, Decoder>(m, "Evt3").def(nb::init<>());
    nb::class_<Nmnist, Decoder>(m, "Nmnist").def(nb::init<>());
    nb::class_<EventStream, Decoder>(m, "EventStream")
        .def(nb::init<bool, std::uint16_t>(), nb::arg("is_atis"), nb::arg("height"));
    nb::class_<Aedat3, Decoder>(m, "Aedat3").def(nb::init<>());
    nb::class_<Text, Decoder>(m, "Text")
        .def(nb::init<std::string, char, int>(), nb::arg("columns"), nb::arg("separator"),
             nb::arg("time_exponent"))
        .def_ro("lines", &Text::lines)
        .def_ro("first_unknown", &Text::first_unknown);
    nb::class_<Addresses, Decoder>(m, "Addresses")
        .def("__init__",
             [](Addresses* self, std::uint32_t x_shift, std::uint32_t x_mask,
                std::uint32_t y_shift, std::uint32_t y_mask, std::uint32_t p_shift,
                std::uint32_t p_mask, std::uint32_t other_mask, std::uint32_t flip_x,
                std::uint32_t flip_y, bool on_is_zero, bool is_big) {
                 if (x_shift > 31 || y_shift > 31 || p_shift > 31)
                     throw std::invalid_argument("an address has 32 bits");
                 const AddressLayout layout{x_shift,    x_mask, y_shift, y_mask, p_shift, p_mask,
                                            other_mask, flip_x, flip_y,  on_is_zero};
                 new (self) Addresses(layout, is_big);
             },
             nb::kw_only(), nb::arg("x_shift"), nb::arg("x_mask"), nb::arg("y_shift"),
             nb::arg("y_mask"), nb::arg("p_shift"), nb::arg("p_mask"), nb::arg("other_mask") = 0,
             nb::arg("flip_x") = 0, nb::arg("flip_y") = 0, nb::arg("on_is_zero") = false,
             nb::arg("is_big") = false);
}

}  // namespace mpsl::decode
