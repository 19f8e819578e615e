#include "text.hpp"

#include <stdexcept>

namespace mpsl::decode {

namespace {

constexpr std::size_t kLongestLine = 1 << 16;
constexpr std::size_t kShortestLine = 8;  // 0,0,0,0 and its end

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

Text::Text(std::string columns, char separator, int time_exponent)
    : columns_(std::move(columns)),
      separator_(separator),
      is_blank_separated_(separator == ' '),
      time_exponent_(time_exponent) {
    for (const char letter : {'t', 'x', 'y', 'p'})
        if (std::count(columns_.begin(), columns_.end(), letter) != 1)
            throw std::invalid_argument("columns are not t, x, y and p once each");
    is_plain_ = columns_.size() == 4 && !is_blank_separated_ && time_exponent == 0;
    for (const char letter : columns_) places_.push_back(std::string("txyp").find(letter));
}

// A decimal number times 10^exponent, rounded to a whole one; null where there is none.
const char* Text::number(const char* at, const char* end, int exponent,
                         std::int64_t& value) const {
    constexpr std::uint64_t kMost = 900'000'000'000'000'000;  // one digit still fits
    const bool is_negative = at != end && *at == '-';
    if (at != end && (*at == '-' || *at == '+')) ++at;
    std::uint64_t digits = 0;
    bool has_digits = false;
    for (; at != end && is_digit(*at); ++at, has_digits = true) {
        if (digits >= kMost) return nullptr;
        digits = digits * 10 + std::uint64_t(*at - '0');
    }
    if (at != end && (*at == '.' || (*at == ',' && separator_ != ','))) {
        for (++at; at != end && is_digit(*at); ++at, has_digits = true) {
            if (digits >= kMost) continue;  // far below a microsecond
            digits = digits * 10 + std::uint64_t(*at - '0');
            --exponent;
        }
    }
    if (!has_digits) return nullptr;
    if (at != end && (*at == 'e' || *at == 'E')) {
        const bool is_small = ++at != end && *at == '-';
        if (at != end && (*at == '-' || *at == '+')) ++at;
        if (at == end || !is_digit(*at)) return nullptr;
        int power = 0;
        for (; at != end && is_digit(*at); ++at) power = std::min(power * 10 + (*at - '0'), 1000);
        exponent += is_small ? -power : power;
    }
    for (; exponent > 0 && digits; --exponent) {
        if (digits >= kMost) return nullptr;
        digits *= 10;
    }
    if (exponent < 0) {
        std::uint64_t divisor = 1;
        for (; exponent < 0 && divisor <= kMost; ++exponent) divisor *= 10;
        digits = exponent < 0 ? 0 : (digits + divisor / 2) / divisor;
    }
    if (digits > std::uint64_t(1) << 62) return nullptr;
    value = is_negative ? -std::int64_t(digits) : std::int64_t(digits);
    return at;
}

const char* Text::polarity(const char* at, const char* end, std::int64_t& value) const {
    struct Word {
        const char* text;
        int value;
    };
    for (const Word& word : {Word{"true", 1}, {"false", 0}, {"on", 1}, {"off", 0}}) {
        const char *here = at, *there = word.text;
        while (*there && here != end && (*here | 0x20) == *there) ++here, ++there;
        if (!*there) {
            value = word.value;
            return here;
        }
    }
    const char* after = number(at, end, 0, value);
    if (!after || value < -1 || value > 1) return nullptr;
    value = value == 1;
    return after;
}

const char* Text::skipped(const char* at, const char* end) const {
    while (at != end && (is_blank_separated_ ? !is_blank(*at) : *at != separator_)) ++at;
    return at;
}

// What nearly every line is: whole numbers without signs, and one separator between two of them.
bool Text::plain_line(const char* at, const char* end, Writer& to) const {
    constexpr std::uint64_t kLargest = 1'000'000'000'000;  // 11 days in µs
    std::uint64_t found[4] = {};  // t x y p
    const std::size_t columns = columns_.size();
    for (std::size_t column = 0; column < columns; ++column) {
        std::uint64_t value = 0;
        const char* const begin = at;
        for (; at != end && is_digit(*at); ++at) value = value * 10 + std::uint64_t(*at - '0');
        if (at == begin || at - begin > 12) return false;
        found[places_[column]] = value;
        if (column + 1 < columns) {
            if (at == end || *at++ != separator_) return false;
        }
    }
    if (at != end && *at == '\r') ++at;
    if (at != end || found[0] > kLargest || found[1] > 0xFFFF || found[2] > 0xFFFF || found[3] > 1)
        return false;
    to.push(std::int64_t(found[0]), std::uint32_t(found[1]), std::uint32_t(found[2]),
            std::uint32_t(found[3]));
    return true;
}

bool Text::line(const char* at, const char* end, Writer& to) {
    if (is_plain_ && plain_line(at, end, to)) return true;
    std::int64_t t = 0, x = 0, y = 0, p = 0;
    const auto blanks = [&] {
        while (at != end && is_blank(*at) && *at != separator_) ++at;
        if (is_blank_separated_)
            while (at != end && is_blank(*at)) ++at;
    };
    for (std::size_t column = 0; column < columns_.size(); ++column) {
        blanks();
        switch (columns_[column]) {
        case 't': at = number(at, end, time_exponent_, t); break;
        case 'x': at = number(at, end, 0, x); break;
        case 'y': at = number(at, end, 0, y); break;
        case 'p': at = polarity(at, end, p); break;
        default: at = skipped(at, end);
        }
        if (!at) return false;
        const char* const after = at;
        blanks();
        if (column + 1 == columns_.size()) break;
        if (is_blank_separated_) {
            if (at == after) return false;
        } else {
            if (at == end || *at != separator_) return false;
            ++at;
        }
    }
    // Separators without anything after them are what some writers end a line with.
    while (at != end && (*at == separator_ || is_blank(*at))) ++at;
    if (at != end || x < 0 || x > 0xFFFF || y < 0 || y > 0xFFFF) return false;
    to.push(t, std::uint32_t(x), std::uint32_t(y), std::uint32_t(p));
    return true;
}

void Text::count(const char* at, const char* end, Writer& to) {
    ++lines;
    while (at != end && is_blank(*at)) ++at;
    if (at == end || *at == '#' || *at == '%' || line(at, end, to)) return;
    if (!unknown++) first_unknown = lines;
}

void Text::feed(const std::uint8_t* data, std::size_t size, Columns& out) {
    Writer to(out, (tail_.size() + size) / kShortestLine + 2);
    const char *at = reinterpret_cast<const char*>(data), *const end = at + size;
    while (at != end) {
        const auto* stop = static_cast<const char*>(std::memchr(at, '\n', std::size_t(end - at)));
        if (tail_.empty() && stop) {
            count(at, stop, to);
        } else {
            tail_.insert(tail_.end(), at, stop ? stop : end);
            if (stop) {
                count(tail_.data(), tail_.data() + tail_.size(), to);
                tail_.clear();
            } else if (tail_.size() > kLongestLine) {
                tail_.resize(kLongestLine);  // no line of events; its rest is of no use
            }
        }
        at = stop ? stop + 1 : end;
    }
}

void Text::finish(Columns& out) {
    Writer to(out, 1);
    if (!tail_.empty()) count(tail_.data(), tail_.data() + tail_.size(), to);
    tail_.clear();
}

}  // namespace mpsl::decode
