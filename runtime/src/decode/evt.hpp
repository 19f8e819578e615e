// Prophesee's words: EVT 2.0, EVT 2.1 and EVT 3.0 ("EVT 2.0/2.1/3.0 format", Metavision docs).
//
// Events before the first TIME_HIGH have no time: they are counted, not given. A loop of the clock
// is a fall of nearly its whole range; a smaller fall is disorder of the stream, which is passed on
// as it is.
#pragma once

#include "decoder.hpp"

namespace mpsl::decode {

// Bits 33…6 of the time, as EVT 2.0 and 2.1 say it.
class High28 {
public:
    bool is_known() const { return is_known_; }
    std::int64_t base() const { return (loops_ * kRange + high_) << 6; }
    std::int64_t set(std::uint32_t high) {
        // A camera says the time every 64 µs: a loop falls to nearly 0. 2^20 words are 67 s.
        if (is_known_ && std::int64_t(high) + kRange - (1 << 20) <= high_) ++loops_;
        high_ = high;
        is_known_ = true;
        return base();
    }

private:
    static constexpr std::int64_t kRange = std::int64_t(1) << 28;
    std::int64_t high_ = 0, loops_ = 0;
    bool is_known_ = false;
};

// 32-bit words: type:4, then 6 bits of time, x:11, y:11; or TIME_HIGH:28.
class Evt2 : public Words<Evt2, 4> {
public:
    void decode(const std::uint8_t* bytes, std::size_t words, Columns& out);

private:
    High28 high_;
};

// 64-bit words: type:4, 6 bits of time, x:11, y:11, and a bit for each of the 32 pixels from x on.
// `swapped`: the upper half comes first ("endianness legacy").
class Evt21 : public Words<Evt21, 8> {
public:
    explicit Evt21(bool swapped) : swapped_(swapped) {}
    void decode(const std::uint8_t* bytes, std::size_t words, Columns& out);

private:
    const bool swapped_;
    High28 high_;
};

// 16-bit words, each of which changes one part of the state: row, column, time.
class Evt3 : public Words<Evt3, 2> {
public:
    void decode(const std::uint8_t* bytes, std::size_t words, Columns& out);

private:
    struct State {
        std::int64_t t = 0;  // loops, TIME_HIGH, TIME_LOW
        std::uint32_t y = 0, base_x = kNoBase, base_p = 0;
        bool has_time = false, has_row = false;
        bool has_low = false;   // a TIME_LOW has come since the TIME_HIGH
        bool is_other = false;  // the row is that of events that are no change of brightness
        bool is_ready() const { return has_time && has_row; }
    };
    struct Missed {
        std::uint64_t before_time = 0, before_address = 0, unknown = 0, without_clock = 0;
        void count(const State& state, std::uint64_t events) {
            if (!state.is_other) (state.has_time ? before_address : before_time) += events;
        }
    };
    static constexpr std::uint32_t kNoBase = 0x800;  // beyond the largest column

    static void step(std::uint32_t word, State& s, Missed& missed, Writer& to);

    State state_;
};

}  // namespace mpsl::decode
