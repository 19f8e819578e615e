// See event_columns.hpp. Callers have checked sizes, and that x < width and y < height.
#include "event_columns.hpp"

#include <cstring>

namespace mpsl::live {

namespace {

template <class Number>
Number read(const std::uint8_t* bytes) {
    Number value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

}  // namespace

Unpacked unpack(const std::uint8_t* data, const std::int64_t* starts, const std::int64_t* times_us,
                const std::int64_t* counts, std::size_t datagrams, int width, int height,
                std::int64_t reached_us, const EventColumnsOut& out) {
    Unpacked done;
    done.reached_us = reached_us;
    std::size_t n = 0;
    for (std::size_t d = 0; d < datagrams; ++d) {
        const std::uint8_t* body = data + starts[d];
        for (std::int64_t i = 0; i < counts[d]; ++i, body += 8) {
            const std::int64_t t = times_us[d] + read<std::uint32_t>(body);
            const auto x = read<std::uint16_t>(body + 4);
            const auto yp = read<std::uint16_t>(body + 6);
            const std::uint16_t y = yp & 0x7FFF;
            if (x >= width || y >= height) {
                ++done.outside;
                continue;
            }
            if (t < done.reached_us) {
                ++done.backwards;
                continue;
            }
            done.reached_us = t;
            out.t[n] = t;
            out.x[n] = x;
            out.y[n] = y;
            out.p[n] = std::uint8_t(yp >> 15);
            ++n;
        }
    }
    done.events = n;
    return done;
}

std::size_t remap(const EventColumns& in, const std::int32_t* columns, std::size_t width,
                  const std::int32_t* rows, std::size_t height, bool merge,
                  const EventColumnsOut& out) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < in.size; ++i) {
        const std::int32_t x = in.x[i] < width ? columns[in.x[i]] : -1;
        const std::int32_t y = in.y[i] < height ? rows[in.y[i]] : -1;
        // Written in any case and kept by moving on: no branch to guess wrongly.
        out.t[n] = in.t[i];
        out.x[n] = std::uint16_t(x);
        out.y[n] = std::uint16_t(y);
        out.p[n] = merge ? std::uint8_t(1) : in.p[i];
        n += (x | y) >= 0;
    }
    return n;
}

void background(const EventColumns& in, int width, std::int64_t window_us, std::int64_t* last_us,
                std::uint8_t* keep) {
    const std::size_t pitch = std::size_t(width) + 2;
    for (std::size_t i = 0; i < in.size; ++i) {
        std::int64_t* above = last_us + in.y[i] * pitch + in.x[i];
        std::int64_t* row = above + pitch;
        const std::int64_t* below = row + pitch;
        const std::int64_t since = in.t[i] - window_us;
        int near = 0;
        for (int u = 0; u < 3; ++u) near |= (above[u] >= since) | (below[u] >= since);
        keep[i] = std::uint8_t(near | (row[0] >= since) | (row[2] >= since));
        row[1] = in.t[i];
    }
}

void refractory(const EventColumns& in, int width, std::int64_t refractory_us,
                std::int64_t* last_us, std::uint8_t* keep) {
    for (std::size_t i = 0; i < in.size; ++i) {
        std::int64_t& last = last_us[std::size_t(in.y[i]) * width + in.x[i]];
        keep[i] = in.t[i] - refractory_us >= last;
        if (keep[i]) last = in.t[i];
    }
}

}  // namespace mpsl::live
