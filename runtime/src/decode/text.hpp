// Events as lines of text: numbers between separators, in columns whose order is given.
#pragma once

#include <string>
#include <vector>

#include "decoder.hpp"

namespace mpsl::decode {

// A line that is no event is counted in `unknown`; empty lines, and those that begin with # or %,
// are passed over. Times are exact: digits are shifted, no float is in between.
class Text : public Decoder {
public:
    // columns: a letter each, t x y p, or - for one that is not read. separator: a byte, or a blank
    // for any number of blanks and tabs. time_exponent: 6 where times are seconds, 0 for µs.
    Text(std::string columns, char separator, int time_exponent);

    void feed(const std::uint8_t* data, std::size_t size, Columns& out) override;
    void finish(Columns& out) override;  // a last line without an end
    std::size_t pending() const override { return tail_.size(); }

    std::uint64_t lines = 0, first_unknown = 0;  // counted from 1

private:
    bool line(const char* at, const char* end, Writer& to);
    bool plain_line(const char* at, const char* end, Writer& to) const;
    void count(const char* at, const char* end, Writer& to);
    const char* number(const char* at, const char* end, int exponent, std::int64_t& value) const;
    const char* polarity(const char* at, const char* end, std::int64_t& value) const;
    const char* skipped(const char* at, const char* end) const;
    bool is_blank(char c) const { return c == ' ' || c == '\r' || c == '"' || c == '\t'; }

    const std::string columns_;
    const char separator_;
    const bool is_blank_separated_;
    const int time_exponent_;
    bool is_plain_ = false;
    std::vector<std::size_t> places_;  // of each column in t x y p
    std::vector<char> tail_;
};

}  // namespace mpsl::decode
