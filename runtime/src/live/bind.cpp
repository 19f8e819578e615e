// Python's view of the receiver and of the work on columns of events.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <stdexcept>
#include <string>
#include <tuple>

#include "datagrams.hpp"
#include "event_columns.hpp"
#include "bind.hpp"

namespace nb = nanobind;
using namespace mpsl::live;

namespace {

template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

using Times = In<std::int64_t>;
using Pixels = In<std::uint16_t>;
using Polarities = In<std::uint8_t>;
using TimesOut = Out<std::int64_t>;
using PixelsOut = Out<std::uint16_t>;
using BytesOut = Out<std::uint8_t>;

void check(bool right) {
    if (!right) throw std::invalid_argument("arrays of events differ in size");
}

EventColumns columns_of(const Times& t, const Pixels& x, const Pixels& y, const Polarities* p) {
    check(x.size() == t.size() && y.size() == t.size() && (!p || p->size() == t.size()));
    return {t.data(), x.data(), y.data(), p ? p->data() : nullptr, t.size()};
}

EventColumnsOut columns_out(const TimesOut& t, const PixelsOut& x, const PixelsOut& y,
                            const BytesOut& p, std::size_t size) {
    check(t.size() >= size && x.size() >= size && y.size() >= size && p.size() >= size);
    return {t.data(), x.data(), y.data(), p.data()};
}

EventCount rule_of(const std::string& name) {
    if (name == "mpsl") return EventCount::Mpsl;
    if (name == "bytes8") return EventCount::Bytes8;
    if (name == "bytes13") return EventCount::Bytes13;
    if (name == "spif") return EventCount::Spif;
    throw std::invalid_argument("no such count of events; got " + name);
}

std::tuple<std::size_t, std::size_t, std::size_t, std::int64_t> unpack_datagrams(
    Polarities data, Times starts, Times times_us, Times counts, int width, int height,
    std::int64_t reached_us, TimesOut t, PixelsOut x, PixelsOut y, BytesOut p) {
    check(times_us.size() == starts.size() && counts.size() == starts.size());
    std::size_t events = 0;
    for (std::size_t i = 0; i < starts.size(); ++i) {
        const std::int64_t start = starts.data()[i], count = counts.data()[i];
        check(start >= 0 && count >= 0 && count <= 1 << 20 &&
              std::uint64_t(start) + 8 * std::uint64_t(count) <= data.size());
        events += std::size_t(count);
    }
    const EventColumnsOut out = columns_out(t, x, y, p, events);
    const nb::gil_scoped_release release;
    const Unpacked done = unpack(data.data(), starts.data(), times_us.data(), counts.data(),
                                 starts.size(), width, height, reached_us, out);
    return {done.events, done.outside, done.backwards, done.reached_us};
}

std::size_t remap_events(Times t, Pixels x, Pixels y, Polarities p, In<std::int32_t> columns,
                         In<std::int32_t> rows, bool merge, TimesOut t_out, PixelsOut x_out,
                         PixelsOut y_out, BytesOut p_out) {
    const EventColumns in = columns_of(t, x, y, &p);
    const EventColumnsOut out = columns_out(t_out, x_out, y_out, p_out, in.size);
    const nb::gil_scoped_release release;
    return remap(in, columns.data(), columns.size(), rows.data(), rows.size(), merge, out);
}

using Map = nb::ndarray<std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// `border`: rows and columns of the map that are no pixels.
void check_inside(const EventColumns& in, const Map& last_us, std::size_t border) {
    check(last_us.shape(0) > border && last_us.shape(1) > border);
    const std::size_t height = last_us.shape(0) - border, width = last_us.shape(1) - border;
    bool inside = true;
    for (std::size_t i = 0; i < in.size; ++i) inside &= in.y[i] < height && in.x[i] < width;
    check(inside);
}

void background_events(Times t, Pixels x, Pixels y, std::int64_t window_us, Map last_us,
                       BytesOut keep) {
    const EventColumns in = columns_of(t, x, y, nullptr);
    check(keep.size() == in.size);
    check_inside(in, last_us, 2);
    const nb::gil_scoped_release release;
    background(in, int(last_us.shape(1)) - 2, window_us, last_us.data(), keep.data());
}

void refractory_events(Times t, Pixels x, Pixels y, std::int64_t refractory_us, Map last_us,
                       BytesOut keep) {
    const EventColumns in = columns_of(t, x, y, nullptr);
    check(keep.size() == in.size);
    check_inside(in, last_us, 0);
    const nb::gil_scoped_release release;
    refractory(in, int(last_us.shape(1)), refractory_us, last_us.data(), keep.data());
}

}  // namespace

void mpsl::live::bind(nb::module_& m) {
    nb::class_<DatagramQueue>(m, "DatagramQueue")
        .def("__init__",
             [](DatagramQueue* self, int socket, std::size_t bytes, std::size_t largest_events,
                const std::string& rule) {
                 new (self) DatagramQueue(socket, bytes, largest_events, rule_of(rule));
             },
             nb::arg("socket"), nb::arg("bytes"), nb::arg("largest_events"), nb::arg("rule"))
        .def("wait",
             [](DatagramQueue& queue, int milliseconds) {
                 const nb::gil_scoped_release release;
                 const auto waiting = queue.wait(milliseconds);
                 return std::tuple(waiting.datagrams, waiting.bytes);
             },
             nb::arg("milliseconds"))
        .def("take",
             [](DatagramQueue& queue, BytesOut data, TimesOut offsets, Out<std::uint64_t> senders,
                TimesOut arrivals_ns) {
                 check(offsets.size() == senders.size() + 1 &&
                       arrivals_ns.size() == senders.size());
                 return queue.take(data.data(), data.size(), offsets.data(), senders.data(),
                                   arrivals_ns.data(), senders.size());
             },
             nb::arg("data").noconvert(), nb::arg("offsets").noconvert(),
             nb::arg("senders").noconvert(), nb::arg("arrivals_ns").noconvert())
        .def("counters",
             [](DatagramQueue& queue) {
                 const auto found = queue.counters();
                 return std::tuple(found.received, found.dropped_datagrams, found.dropped_events,
                                   found.system_drops);
             })
        .def("waiting_events", &DatagramQueue::waiting_events)
        .def("stop", [](DatagramQueue& queue) {
            const nb::gil_scoped_release release;
            queue.stop();
        });
    m.def("unpack_datagrams", &unpack_datagrams, nb::arg("data"), nb::arg("starts"),
          nb::arg("times_us"), nb::arg("counts"), nb::arg("width"), nb::arg("height"),
          nb::arg("reached_us"), nb::arg("t").noconvert(), nb::arg("x").noconvert(),
          nb::arg("y").noconvert(), nb::arg("p").noconvert());
    m.def("remap_events", &remap_events, nb::arg("t"), nb::arg("x"), nb::arg("y"), nb::arg("p"),
          nb::arg("columns"), nb::arg("rows"), nb::arg("merge"), nb::arg("t_out").noconvert(),
          nb::arg("x_out").noconvert(), nb::arg("y_out").noconvert(),
          nb::arg("p_out").noconvert());
    m.def("background_events", &background_events, nb::arg("t"), nb::arg("x"), nb::arg("y"),
          nb::arg("window_us"), nb::arg("last_us").noconvert(), nb::arg("keep").noconvert());
    m.def("refractory_events", &refractory_events, nb::arg("t"), nb::arg("x"), nb::arg("y"),
          nb::arg("refractory_us"), nb::arg("last_us").noconvert(), nb::arg("keep").noconvert());
}
