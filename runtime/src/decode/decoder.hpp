// What all decoders of event words have in common: bytes in pieces of any size, events out, and a
// count of what was no event. Bytes come from strangers: nothing here trusts them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "columns.hpp"

namespace mpsl::decode {

class Decoder {
public:
    virtual ~Decoder() = default;

    // Appends the events of the next bytes; what they begin and do not end is kept.
    virtual void feed(const std::uint8_t* data, std::size_t size, Columns& out) = 0;

    // What the end completes.
    virtual void finish(Columns&) {}

    // Bytes that wait for the rest of their word or packet.
    virtual std::size_t pending() const = 0;

    std::uint64_t before_time = 0;     // events before the first word that says the time
    std::uint64_t before_address = 0;  // events before the word that says their row or column
    std::uint64_t without_clock = 0;   // the low part of the time began anew, its high part did not
    std::uint64_t outside = 0;         // events that no sensor of the format can have
    std::uint64_t unknown = 0;         // words of a type that the format does not have
    bool is_lost = false;              // what follows cannot be divided into words any more

    std::mutex mutex;  // the interpreter's lock is not held while words are decoded
};

// Little-endian, whatever the machine is.
inline std::uint32_t load16(const std::uint8_t* p) { return p[0] | std::uint32_t(p[1]) << 8; }
inline std::uint32_t load32(const std::uint8_t* p) { return load16(p) | load16(p + 2) << 16; }
inline std::uint64_t load64(const std::uint8_t* p) {
    return load32(p) | std::uint64_t(load32(p + 4)) << 32;
}
inline std::uint32_t load32_big(const std::uint8_t* p) {
    return std::uint32_t(p[0]) << 24 | std::uint32_t(p[1]) << 16 | std::uint32_t(p[2]) << 8 | p[3];
}

// Words of `kBytes`; `Derived::decode(bytes, words, out)` sees whole ones alone.
template <class Derived, std::size_t kBytes>
class Words : public Decoder {
public:
    void feed(const std::uint8_t* data, std::size_t size, Columns& out) override {
        auto& derived = static_cast<Derived&>(*this);
        if (kept_) {
            const std::size_t more = std::min(kBytes - kept_, size);
            std::memcpy(tail_ + kept_, data, more);
            kept_ += more;
            data += more;
            size -= more;
            if (kept_ < kBytes) return;
            kept_ = 0;
            derived.decode(tail_, 1, out);
        }
        const std::size_t words = size / kBytes;
        derived.decode(data, words, out);
        kept_ = size - words * kBytes;
        std::memcpy(tail_, data + words * kBytes, kept_);
    }
    std::size_t pending() const override { return kept_; }

private:
    std::uint8_t tail_[kBytes];
    std::size_t kept_ = 0;
};

}  // namespace mpsl::decode
