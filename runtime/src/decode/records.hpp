// Formats whose events are records of one size: DAT, AEDAT 2.0, N-MNIST; and Event Stream and
// AEDAT 3.1, whose events come in between others.
#pragma once

#include "decoder.hpp"

namespace mpsl::decode {

// A clock of 32 bits that loops. A fall by more than half its range is a loop; a rise by more than
// half is an event from before the last loop, come late.
class Clock32 {
public:
    std::int64_t operator()(std::uint32_t now) {
        constexpr std::uint32_t half = std::uint32_t(1) << 31;
        if (now < last_ && last_ - now > half) {
            loops_ += std::int64_t(1) << 32;
        } else if (now > last_ && now - last_ > half && loops_ && !is_first_) {
            return loops_ - (std::int64_t(1) << 32) + now;
        }
        is_first_ = false;
        last_ = now;
        return loops_ + now;
    }
    // Takes in times that do not fall, from `first` to `last`, where there is no loop among them.
    bool goes_on(std::uint32_t first, std::uint32_t last) {
        if (first < last_ || (loops_ && last - last_ > std::uint32_t(1) << 31)) return false;
        is_first_ = false;
        last_ = last;
        return true;
    }
    std::int64_t loops() const { return loops_; }

private:
    std::uint32_t last_ = 0;
    std::int64_t loops_ = 0;
    bool is_first_ = true;
};

// Where the parts of a 32-bit address lie.
struct AddressLayout {
    std::uint32_t x_shift, x_mask, y_shift, y_mask, p_shift, p_mask;
    std::uint32_t other_mask;      // any of these bits: not a change of brightness
    std::uint32_t flip_x, flip_y;  // the largest coordinate where it counts from the far end, or 0
    bool on_is_zero;
};

// 8 bytes: time and address (DAT, little-endian), or address and time (AEDAT 2.0, big-endian).
class Addresses : public Words<Addresses, 8> {
public:
    Addresses(const AddressLayout& layout, bool is_big) : layout_(layout), is_big_(is_big) {}
    void decode(const std::uint8_t* bytes, std::size_t words, Columns& out);

private:
    const AddressLayout layout_;
    const bool is_big_;
    Clock32 clock_;
};

// 5 bytes: x, y, then 24 bits, the highest of which is the polarity. y = 240 is no event, but says
// that the clock of 2^23 µs has gone on by 2^13 µs.
class Nmnist : public Words<Nmnist, 5> {
public:
    void decode(const std::uint8_t* bytes, std::size_t words, Columns& out);

private:
    std::int64_t gone_on_ = 0;
};

// Event Stream 2.x, after its header: DVS events, or the changes of ATIS events. Its rows count from
// the bottom.
class EventStream : public Decoder {
public:
    EventStream(bool is_atis, std::uint16_t height) : is_atis_(is_atis), height_(height) {}
    void feed(const std::uint8_t* data, std::size_t size, Columns& out) override;
    std::size_t pending() const override { return kept_; }

private:
    template <bool kAtis>
    void run(const std::uint8_t* data, std::size_t size, Columns& out);

    const bool is_atis_;
    const std::uint32_t height_;
    std::int64_t t_ = 0;
    std::uint8_t event_[5];
    std::size_t kept_ = 0;
};

// AEDAT 3.1, after its header: packets of which those of type 1 hold polarity events.
class Aedat3 : public Decoder {
public:
    void feed(const std::uint8_t* data, std::size_t size, Columns& out) override;
    std::size_t pending() const override { return kept_ + (left_ ? 1 : 0); }

private:
    void begin(const std::uint8_t* header);
    std::size_t events(const std::uint8_t* data, std::size_t size, Columns& out);

    std::uint64_t left_ = 0;  // bytes of the packet that are to come
    std::int64_t overflow_us_ = 0;
    bool is_polarity_ = false, are_all_valid_ = false;
    std::uint8_t part_[28];
    std::size_t kept_ = 0;
};

}  // namespace mpsl::decode
