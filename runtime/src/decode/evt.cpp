#include "evt.hpp"

namespace mpsl::decode {

namespace {

enum : std::uint32_t { kOff = 0x0, kOn = 0x1, kTimeHigh = 0x8, kTrigger = 0xA, kOthers = 0xE };
enum : std::uint32_t { kAddressY = 0x0, kAddressX = 0x2, kTimeLow = 0x6 };  // EVT 3.0
constexpr std::size_t kBlock = 512;  // words, for which room for the most events is made at once

constexpr bool is_passed_over(std::uint32_t type) { return type == kTrigger || type >= kOthers; }

}  // namespace

void Evt2::decode(const std::uint8_t* bytes, std::size_t words, Columns& out) {
    Writer to(out, words);
    const std::uint8_t* const end = bytes + 4 * words;
    std::uint64_t early = 0, strange = 0;
    std::int64_t base = high_.base();
    bool is_timed = high_.is_known();
    for (; bytes != end; bytes += 4) {
        const std::uint32_t word = load32(bytes), type = word >> 28;
        if (type <= kOn) {
            if (is_timed)
                to.push(base | (word >> 22 & 0x3F), word >> 11 & 0x7FF, word & 0x7FF, type);
            else
                ++early;
        } else if (type == kTimeHigh) {
            base = high_.set(word & 0xFFFFFFF);
            is_timed = true;
        } else {
            strange += !is_passed_over(type);
        }
    }
    before_time += early;
    unknown += strange;
}

void Evt21::decode(const std::uint8_t* bytes, std::size_t words, Columns& out) {
    Writer to(out, words);
    const std::uint8_t* const end = bytes + 8 * words;
    std::uint64_t early = 0, strange = 0;
    std::int64_t base = high_.base();
    bool is_timed = high_.is_known();
    const int upper = swapped_ ? 0 : 4, lower = 4 - upper;
    while (bytes != end) {
        const std::size_t block = std::min<std::size_t>(kBlock, std::size_t(end - bytes) / 8);
        to.reserve(32 * block);
        for (const std::uint8_t* stop = bytes + 8 * block; bytes != stop; bytes += 8) {
            const std::uint32_t word = load32(bytes + upper), type = word >> 28;
            if (type <= kOn) {
                std::uint32_t pixels = load32(bytes + lower);
                if (!is_timed) {
                    early += std::uint64_t(__builtin_popcount(pixels));
                    continue;
                }
                const std::int64_t t = base | (word >> 22 & 0x3F);
                const std::uint32_t x = word >> 11 & 0x7FF, y = word & 0x7FF;
                for (; pixels; pixels &= pixels - 1)
                    to.push(t, x + std::uint32_t(__builtin_ctz(pixels)), y, type);
            } else if (type == kTimeHigh) {
                base = high_.set(word & 0xFFFFFFF);
                is_timed = true;
            } else {
                strange += !is_passed_over(type);
            }
        }
    }
    before_time += early;
    unknown += strange;
}

void Evt3::step(std::uint32_t word, State& s, Missed& missed, Writer& to) {
    const auto pixels = [&](std::uint32_t valid, std::uint32_t width) {
        if (s.is_ready() && s.base_x < 0x800) {
            for (; valid; valid &= valid - 1)
                to.push(s.t, s.base_x + std::uint32_t(__builtin_ctz(valid)), s.y, s.base_p);
        } else {
            missed.count(s, std::uint64_t(__builtin_popcount(valid)));
        }
        if (s.base_x < 0x800) s.base_x += width;
    };
    switch (word >> 12) {
    case kAddressY:  // bit 11 is which of two cameras
        s.y = word & 0x7FF;
        s.has_row = true;
        s.is_other = false;
        break;
    case 0x1:  // the row of another kind of event
        s.has_row = false;
        s.is_other = true;
        break;
    case kAddressX:
        if (s.is_ready())
            to.push(s.t, word & 0x7FF, s.y, word >> 11 & 1);
        else
            missed.count(s, 1);
        break;
    case 0x3:  // VECT_BASE_X
        s.base_x = word & 0x7FF;
        s.base_p = word >> 11 & 1;
        break;
    case 0x4:  // VECT_12
        pixels(word & 0xFFF, 12);
        break;
    case 0x5:  // VECT_8
        pixels(word & 0xFF, 8);
        break;
    case kTimeLow:  // the new value holds, also where it falls (as in OpenEB)
        missed.without_clock += s.has_low && (s.t & 0xFFF) >= (word & 0xFFF) + 0x800;
        s.t = (s.t & ~std::int64_t(0xFFF)) | (word & 0xFFF);
        s.has_low = true;
        break;
    case kTimeHigh: {
        const std::int64_t high = std::int64_t(word & 0xFFF) << 12;
        const std::int64_t before = s.t & 0xFFF000;
        if (s.has_time && high == before) break;
        s.t = (s.t & ~std::int64_t(0xFFFFFF)) | high;  // its TIME_LOW follows
        if (s.has_time && before - high >= 0x800 << 12) s.t += 0x1000 << 12;
        s.has_time = true;
        s.has_low = false;
        break;
    }
    case 0x7: case 0xA: case 0xE: case 0xF:  // CONTINUED, EXT_TRIGGER, OTHERS
        break;
    default:
        ++missed.unknown;
    }
}

void Evt3::decode(const std::uint8_t* bytes, std::size_t words, Columns& out) {
    Writer to(out, words);
    State s = state_;
    Missed missed;
    const std::uint8_t* const end = bytes + 2 * words;
    while (bytes != end) {
        const std::size_t block = std::min<std::size_t>(kBlock, std::size_t(end - bytes) / 2);
        to.reserve(12 * block);
        for (const std::uint8_t* stop = bytes + 2 * block; bytes != stop; bytes += 2) {
            const std::uint32_t word = load16(bytes), type = word >> 12;
            constexpr std::uint32_t often = 1 << kAddressY | 1 << kAddressX | 1 << kTimeLow;
            if (!(often >> type & 1) || !s.is_ready()) {
                step(word, s, missed, to);
                continue;
            }
            // The three that come most, in an order that nobody can foretell, without a branch: an
            // event is written each time, and counted where it is one.
            const bool is_row = type == kAddressY, is_low = type == kTimeLow;
            missed.without_clock +=
                is_low & s.has_low & ((s.t & 0xFFF) >= std::int64_t(word & 0xFFF) + 0x800);
            s.y = is_row ? word & 0x7FF : s.y;
            s.t = is_low ? (s.t & ~std::int64_t(0xFFF)) | (word & 0xFFF) : s.t;
            s.has_low |= is_low;
            to.push_if(type == kAddressX, s.t, word & 0x7FF, s.y, word >> 11 & 1);
        }
    }
    state_ = s;
    before_time += missed.before_time;
    before_address += missed.before_address;
    unknown += missed.unknown;
    without_clock += missed.without_clock;
}

}  // namespace mpsl::decode
