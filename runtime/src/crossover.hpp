// The share of firing neurons above which the dense loops are faster than lists.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "signal.hpp"

namespace mpsl {

// The value of the environment variable MPSL_CROSSOVER, 0 (always dense) … 1 (never); negative
// without one.
inline double forced_crossover() {
    const char* const text = std::getenv("MPSL_CROSSOVER");
    if (!text || !*text) return -1;
    char* end;
    const double value = std::strtod(text, &end);
    if (*end || !(value >= 0 && value <= 1))
        throw std::invalid_argument("MPSL_CROSSOVER is no share; got " + std::string(text) +
                                    "; expected 0 … 1");
    return value;
}

// Neurons fire at random, `sixteenths`/16 of them; the same ones every time.
inline void fire_at_random(Signal& signal, int sixteenths) {
    std::uint64_t state = 0x9e3779b97f4a7c15;
    const auto random = [&state] {  // Marsaglia 2003, xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    };
    const int last = signal.extent.channels % 64;
    for (std::size_t i = 0; i < signal.bits.size(); ++i) {
        std::uint64_t word = 0;
        for (int bit = 0; bit < 4; ++bit)
            word = sixteenths >> bit & 1 ? word | random() : word & random();
        const bool is_last = last && i % signal.words == std::size_t(signal.words) - 1;
        signal.bits[i] = is_last ? word & ((std::uint64_t(1) << last) - 1) : word;
    }
}

// Seconds of the fastest of a few calls: what disturbs a call makes it slower.
template <class Call>
double fastest(Call call) {
    double best = 1e9;
    for (int round = 0; round < 3; ++round) {
        const auto begin = std::chrono::steady_clock::now();
        call();
        best = std::min(
            best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
}

// Measures both ways on `signal`, which is silent again afterwards. Only for sums that are the
// same both ways: a clock must not decide how a result is rounded.
// `step(is_dense)`: reads the signal and adds up. `guess`: in sixteenths; the result lies between
// its half and its double, so that a measurement which was disturbed does little harm.
template <class Step>
double calibrate(Signal& signal, int guess, Step step) {
    signal.bits.clear();
    const double silent = fastest([&] { step(false); });
    fire_at_random(signal, guess);
    const double crowded = fastest([&] { step(false); });
    const double dense = fastest([&] { step(true); });
    signal.bits.clear();
    // Lists cost what the spikes cost: a line through two points, one of them nearly free.
    const double found = crowded > silent ? (dense - silent) / (crowded - silent) : 1.0;
    return std::clamp(found, 0.5, 2.0) * guess / 16;
}

}  // namespace mpsl
