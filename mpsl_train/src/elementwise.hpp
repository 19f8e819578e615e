// Neurons forward and back, neuron by neuron. Every result is rounded as torch's operations round.
#pragma once

#include <cmath>

#include "kernels.hpp"
#include "scratch.hpp"

namespace mpsl {

namespace {

// A quotient of two polynomials in x², error below 4 units in the last place; tanh(7.9) is 1.
inline float hyperbolic(float x) {
    constexpr float end = 7.90531110763549805f;
    x = x > end ? end : x < -end ? -end : x;
    const float y = x * x;
    float p = -2.76076847742355e-16f;
    p = p * y + 2.00018790482477e-13f;
    p = p * y - 8.60467152213735e-11f;
    p = p * y + 5.12229709037114e-08f;
    p = p * y + 1.48572235717979e-05f;
    p = p * y + 6.37261928875436e-04f;
    p = p * y + 4.89352455891786e-03f;
    float q = 1.19825839466702e-06f;
    q = q * y + 1.18534705686654e-04f;
    q = q * y + 2.26843463243900e-03f;
    q = q * y + 4.89352518554385e-03f;
    return x * p / q;
}

inline double hyperbolic(double x) { return std::tanh(x); }

template <bool first, bool last, class T>
void fire_chunk(T* __restrict current, T* __restrict membrane, std::uint8_t* __restrict fired,
                std::uint8_t* __restrict near, std::int64_t count, T decay, T threshold, T half) {
    for (std::int64_t i = 0; i < count; ++i) {
        const T u = first ? current[i] : membrane[i] * decay + current[i];
        fired[i] = u >= threshold;
        near[i] = (u - threshold < half) & (threshold - u < half);
        current[i] = u;
        membrane[i] = last ? u : (u >= threshold ? u - threshold : u);
    }
}

template <class T>
void activate(T* current, std::int64_t count, T threshold) {
    for (std::int64_t i = 0; i < count; ++i) current[i] = hyperbolic(current[i] / threshold);
}

template <class T>
struct Back {
    T decay, threshold, width, share;
    bool first;
};

// e = ρ·e + near·(∂L/∂S − V_th·ρ·e)/a
template <bool first, class T>
void unfire_run(const T* __restrict gradient, T* __restrict later,
                const std::uint8_t* __restrict near, std::int64_t count, const Back<T> back) {
    for (std::int64_t i = 0; i < count; ++i) {
        const T past = first ? T(0) : later[i] * back.decay;
        const T given = (gradient ? gradient[i] / back.share : T(0)) - back.threshold * past;
        later[i] = past + (near[i] ? given / back.width : T(0));
    }
}

template <class T>
void unfire_some(const T* gradient, T* later, const std::uint8_t* near, std::int64_t count,
                 const Back<T>& back) {
    if (back.first) unfire_run<true>(gradient, later, near, count, back);
    else unfire_run<false>(gradient, later, near, count, back);
}

template <class T>
void fire(T* current, T* membrane, std::uint8_t* fired, std::uint8_t* near, std::int64_t count,
          const Neuron& neuron, bool first, bool last, bool activity, int threads) {
    const T decay = T(neuron.decay), threshold = T(neuron.threshold), half = T(neuron.width / 2);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t begin = 0; begin < count; begin += kChunk) {
        const std::int64_t n = least(kChunk, count - begin);
        T *i = current + begin, *v = membrane + begin;
        std::uint8_t *s = fired + begin, *m = near + begin;
        if (first && last) fire_chunk<true, true>(i, v, s, m, n, decay, threshold, half);
        else if (first) fire_chunk<true, false>(i, v, s, m, n, decay, threshold, half);
        else if (last) fire_chunk<false, true>(i, v, s, m, n, decay, threshold, half);
        else fire_chunk<false, false>(i, v, s, m, n, decay, threshold, half);
        if (activity) activate(i, n, threshold);
    }
}

template <class T>
void pool(const std::uint8_t* fired, T* out, const Shape& shape, std::int64_t size, int threads) {
    const std::int64_t rows = shape.rows / size, columns = shape.columns / size;
    const std::int64_t channels = shape.channels;
    const T share = T(size * size);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t line = 0; line < shape.batch * rows; ++line) {
        const std::int64_t image = line / rows, row = line % rows;
        for (std::int64_t column = 0; column < columns; ++column) {
            T* __restrict to = out + (line * columns + column) * channels;
            for (std::int64_t part = 0; part < size * size; ++part) {
                const std::int64_t y = row * size + part / size, x = column * size + part % size;
                const std::uint8_t* __restrict from =
                    fired + ((image * shape.rows + y) * shape.columns + x) * channels;
                if (part == 0)
                    for (std::int64_t c = 0; c < channels; ++c) to[c] = T(from[c]);
                else
                    for (std::int64_t c = 0; c < channels; ++c) to[c] += T(from[c]);
            }
            if (size > 1)
                for (std::int64_t c = 0; c < channels; ++c) to[c] /= share;
        }
    }
}

template <class T>
void unfire(const T* gradient, T* later, const std::uint8_t* near, const Shape& shape,
            std::int64_t size, const Neuron& neuron, bool first, int threads) {
    const Back<T> back{T(neuron.decay), T(neuron.threshold), T(neuron.width), T(size * size), first};
    const std::int64_t channels = shape.channels;
    if (size == 1) {
        const std::int64_t count = shape.batch * shape.rows * shape.columns * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t begin = 0; begin < count; begin += kChunk)
            unfire_some(gradient + begin, later + begin, near + begin,
                        least(kChunk, count - begin), back);
        return;
    }
    const std::int64_t rows = shape.rows / size, columns = shape.columns / size;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t line = 0; line < shape.batch * shape.rows; ++line) {
        const std::int64_t image = line / shape.rows, row = line % shape.rows / size;
        for (std::int64_t x = 0; x < shape.columns; ++x) {
            // Pooling drops what does not fill a window.
            const bool inside = row < rows && x / size < columns;
            const T* given = gradient + ((image * rows + row) * columns + x / size) * channels;
            const std::int64_t at = (line * shape.columns + x) * channels;
            unfire_some(inside ? given : static_cast<const T*>(nullptr), later + at, near + at,
                        channels, back);
        }
    }
}

template <class T>
std::int64_t nonzero(const T* x, std::int64_t count, int threads) {
    std::int64_t found = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : found)
    for (std::int64_t begin = 0; begin < count; begin += kChunk) {
        std::int32_t some = 0;
        for (std::int64_t i = begin; i < least(count, begin + kChunk); ++i) some += x[i] != 0;
        found += some;
    }
    return found;
}

}  // namespace

}  // namespace mpsl
