// Work on columns of events that numpy would need many passes for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mpsl::live {

struct EventColumns {
    const std::int64_t* t;
    const std::uint16_t *x, *y;
    const std::uint8_t* p;
    std::size_t size;
};

struct EventColumnsOut {
    std::int64_t* t;
    std::uint16_t *x, *y;
    std::uint8_t* p;
};

// Bodies of datagrams: `starts`, `times_us` and `counts` of each. Events outside the sensor, and
// those before an event that has been given, are left out and counted.
struct Unpacked {
    std::size_t events = 0, outside = 0, backwards = 0;
    std::int64_t reached_us = 0;
};
Unpacked unpack(const std::uint8_t* data, const std::int64_t* starts, const std::int64_t* times_us,
                const std::int64_t* counts, std::size_t datagrams, int width, int height,
                std::int64_t reached_us, const EventColumnsOut& out);

// Moves events to other pixels: `columns` of each x, `rows` of each y, -1 where they are left out.
// Returns the number of events that stay.
std::size_t remap(const EventColumns& in, const std::int32_t* columns, std::size_t width,
                  const std::int32_t* rows, std::size_t height, bool merge,
                  const EventColumnsOut& out);

// keep[i] = 1 where one of the eight neighbours fired at most `window_us` before. `last_us`,
// [H + 2, W + 2] with a border that never fires, is carried from call to call.
void background(const EventColumns& in, int width, std::int64_t window_us, std::int64_t* last_us,
                std::uint8_t* keep);

// keep[i] = 1 where the pixel's last kept event is at least `refractory_us` ago.
void refractory(const EventColumns& in, int width, std::int64_t refractory_us,
                std::int64_t* last_us, std::uint8_t* keep);

}  // namespace mpsl::live
