#include "records.hpp"

namespace mpsl::decode {

namespace {

// DAT's layout, known while this is compiled: twice as fast as one that is looked up.
struct DatLayout {
    static constexpr std::uint32_t x_shift = 0, x_mask = 0x3FFF, y_shift = 14, y_mask = 0x3FFF,
                                   p_shift = 28, p_mask = 0xF, other_mask = 0, flip_x = 0,
                                   flip_y = 0;
    static constexpr bool on_is_zero = false;

    static bool is(const AddressLayout& l) {
        return l.x_shift == x_shift && l.x_mask == x_mask && l.y_shift == y_shift &&
               l.y_mask == y_mask && l.p_shift == p_shift && l.p_mask == p_mask &&
               l.other_mask == 0 && l.flip_x == 0 && l.flip_y == 0 && !l.on_is_zero;
    }
};

// Times that do not fall, of one block: the clock need not look at each. Column by column, for the
// compiler to take several at a time.
bool take_in_order(const std::uint8_t* bytes, std::size_t number, Clock32& clock, Writer& to) {
    using Layout = DatLayout;
    std::uint32_t last = load32(bytes);
    bool falls = false;
    for (std::size_t i = 0; i < number; ++i) {
        const std::uint32_t now = load32(bytes + 8 * i);
        falls |= now < last;
        last = now;
    }
    if (falls || !clock.goes_on(load32(bytes), last)) return false;
    const std::int64_t loops = clock.loops();
    const Writer::Room room = to.take(number);
    for (std::size_t i = 0; i < number; ++i) room.t[i] = loops + load32(bytes + 8 * i);
    for (std::size_t i = 0; i < number; ++i) {
        const std::uint32_t address = load32(bytes + 8 * i + 4);
        room.x[i] = std::uint16_t(address & Layout::x_mask);
        room.y[i] = std::uint16_t(address >> Layout::y_shift & Layout::y_mask);
        room.p[i] = std::uint8_t(address >> Layout::p_shift != 0);
    }
    return true;
}

template <bool kBig, class Layout>
std::uint64_t run(const std::uint8_t* bytes, std::size_t words, const Layout layout, Clock32& kept,
                  Columns& out) {
    Writer to(out, words);
    Clock32 clock = kept;
    std::uint64_t wrong = 0;
    for (const std::uint8_t* end = bytes + 8 * words; bytes != end; bytes += 8) {
        const std::uint32_t first = kBig ? load32_big(bytes) : load32(bytes);
        const std::uint32_t second = kBig ? load32_big(bytes + 4) : load32(bytes + 4);
        const std::uint32_t address = kBig ? first : second;
        const std::int64_t t = clock(kBig ? second : first);
        if (address & layout.other_mask) continue;
        std::uint32_t x = address >> layout.x_shift & layout.x_mask;
        std::uint32_t y = address >> layout.y_shift & layout.y_mask;
        if (layout.flip_x) x = layout.flip_x - x;  // what is outside becomes very large
        if (layout.flip_y) y = layout.flip_y - y;
        if (x > 0xFFFF || y > 0xFFFF) {
            ++wrong;
            continue;
        }
        const bool is_set = (address >> layout.p_shift & layout.p_mask) != 0;
        to.push(t, x, y, is_set != layout.on_is_zero);
    }
    kept = clock;
    return wrong;
}

void decode_dat(const std::uint8_t* bytes, std::size_t words, Clock32& clock, Columns& out) {
    constexpr std::size_t kBlock = 1024;
    for (std::size_t done = 0; done < words;) {
        const std::size_t number = std::min(kBlock, words - done);
        const std::uint8_t* const at = bytes + 8 * done;
        bool is_taken = false;
        {
            Writer to(out, done == 0 ? words : number);
            is_taken = take_in_order(at, number, clock, to);
        }
        if (!is_taken) run<false>(at, number, DatLayout(), clock, out);
        done += number;
    }
}

}  // namespace

void Addresses::decode(const std::uint8_t* bytes, std::size_t words, Columns& out) {
    if (is_big_)
        outside += run<true>(bytes, words, layout_, clock_, out);
    else if (DatLayout::is(layout_))
        decode_dat(bytes, words, clock_, out);
    else
        outside += run<false>(bytes, words, layout_, clock_, out);
}

void Nmnist::decode(const std::uint8_t* bytes, std::size_t words, Columns& out) {
    Writer to(out, words);
    std::int64_t gone_on = gone_on_;
    for (const std::uint8_t* end = bytes + 5 * words; bytes != end; bytes += 5) {
        const std::uint32_t high = bytes[2];
        const std::uint32_t t = (high & 0x7F) << 16 | std::uint32_t(bytes[3]) << 8 | bytes[4];
        if (bytes[1] == 240)
            gone_on += 1 << 13;
        else
            to.push(gone_on + t, bytes[0], bytes[1], high >> 7);
    }
    gone_on_ = gone_on;
}

template <bool kAtis>
void EventStream::run(const std::uint8_t* data, std::size_t size, Columns& out) {
    Writer to(out, size / 5 + 1);
    std::int64_t t = t_;
    const std::uint8_t* const end = data + size;
    const std::uint32_t height = height_;
    std::uint64_t wrong = 0;
    const auto event = [&](const std::uint8_t* bytes) {
        const std::uint32_t first = bytes[0], y = load16(bytes + 3);
        t += first >> (kAtis ? 2 : 1);
        if (kAtis && (first & 1)) return;  // a measurement of the brightness, not its change
        if (y < height)
            to.push(t, load16(bytes + 1), height - 1 - y, kAtis ? first >> 1 & 1 : first & 1);
        else
            ++wrong;
    };
    while (data != end) {
        if (kept_ == 0) {
            const std::uint32_t first = *data;
            if (kAtis && first >= 0xFC) {
                t += 63 * std::int64_t(first & 3);
                ++data;
                continue;
            }
            if (!kAtis && first >= 0xFE) {
                t += first & 1 ? 127 : 0;  // else the reset that brings a lost reader back
                ++data;
                continue;
            }
            if (end - data >= 5) {
                event(data);
                data += 5;
                continue;
            }
        }
        event_[kept_++] = *data++;
        if (kept_ == 5) {
            event(event_);
            kept_ = 0;
        }
    }
    t_ = t;
    outside += wrong;
}

void EventStream::feed(const std::uint8_t* data, std::size_t size, Columns& out) {
    is_atis_ ? run<true>(data, size, out) : run<false>(data, size, out);
}

void Aedat3::begin(const std::uint8_t* header) {
    const auto field = [header](int at) { return std::int32_t(load32(header + at)); };
    const std::int64_t size = field(4), number = field(20);
    is_polarity_ = load16(header) == 1;
    // Writers exist that count every event as valid and leave the bits at 0.
    are_all_valid_ = field(24) == number;
    overflow_us_ = std::int64_t(field(12)) * (std::int64_t(1) << 31);
    is_lost = size < 1 || number < 0 || field(12) < 0 || (is_polarity_ && size != 8);
    left_ = is_lost ? 0 : std::uint64_t(size) * std::uint64_t(number);
}

std::size_t Aedat3::events(const std::uint8_t* data, std::size_t size, Columns& out) {
    const std::size_t number = size / 8;
    Writer to(out, number);
    for (const std::uint8_t* end = data + 8 * number; data != end; data += 8) {
        const std::uint32_t word = load32(data);
        if (are_all_valid_ || (word & 1))
            to.push(overflow_us_ + std::int32_t(load32(data + 4)), word >> 17, word >> 2 & 0x7FFF,
                    word >> 1 & 1);
    }
    return 8 * number;
}

void Aedat3::feed(const std::uint8_t* data, std::size_t size, Columns& out) {
    const std::uint8_t* const end = data + size;
    while (data != end && !is_lost) {
        const std::size_t there = std::size_t(end - data);
        if (left_ && !is_polarity_) {
            const std::size_t passed = std::size_t(std::min<std::uint64_t>(left_, there));
            left_ -= passed;
            data += passed;
            continue;
        }
        const std::size_t want = left_ ? 8 : sizeof part_;  // an event, or the next packet's header
        if (left_ && kept_ == 0 && there >= want) {
            const auto part = std::size_t(std::min<std::uint64_t>(left_, there));
            const std::size_t used = events(data, part, out);
            left_ -= used;
            data += used;
            continue;
        }
        part_[kept_++] = *data++;
        if (kept_ < want) continue;
        kept_ = 0;
        if (left_) {
            events(part_, 8, out);
            left_ -= 8;
        } else {
            begin(part_);
        }
    }
}

}  // namespace mpsl::decode
