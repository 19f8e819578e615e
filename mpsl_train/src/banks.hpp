// What has the shape of the weights: the rule's change, the banks, the adjoint trace, its products.
#pragma once

#include "kernels.hpp"
#include "scratch.hpp"

namespace mpsl {

namespace {

// Sums are taken in blocks of so many lines, the same for any number of threads.
constexpr std::int64_t kBlock = 64;

// A line of a bank is all outputs of one input (columns), or all inputs of one output (rows): what
// belongs to an output is then an array along the line, or one number of it.
template <bool columns, class T>
void finish_line(T* __restrict change, const T* __restrict beta, const T* __restrict mean,
                 std::int64_t line, std::int64_t length, T count) {
    for (std::int64_t i = 0; i < length; ++i)
        change[i] = change[i] / count + beta[columns ? i : line] * mean[columns ? line : i];
}

template <bool columns, class T>
void learn_line(const T* __restrict change, const T* __restrict base, T* __restrict hebbian,
                T* __restrict steered, T* __restrict weight, std::int64_t line,
                std::int64_t length, const Step<T> step) {
    if (!steered) {
        for (std::int64_t i = 0; i < length; ++i) {
            hebbian[i] = hebbian[i] * step.decay + change[i] * step.eta;
            if (weight) weight[i] = base[i] + hebbian[i] * step.first[columns ? i : line];
        }
        return;
    }
    for (std::int64_t i = 0; i < length; ++i) {
        const std::int64_t output = columns ? i : line;
        const T now = change[i] * step.eta;
        hebbian[i] = hebbian[i] * step.decay + now;
        steered[i] = steered[i] * step.decay + now * step.factor[output];
        if (weight)
            weight[i] = base[i] + hebbian[i] * step.first[output] + steered[i] * step.second[output];
    }
}

template <class T>
void sums(const T* values, T* out, std::int64_t count, std::int64_t channels, int threads) {
    const std::int64_t blocks = (count + kBlock - 1) / kBlock;
    static Scratch<T> scratch;
    T* partial = scratch.get(blocks * channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t block = 0; block < blocks; ++block) {
        T* __restrict sum = partial + block * channels;
        for (std::int64_t c = 0; c < channels; ++c) sum[c] = 0;
        for (std::int64_t line = block * kBlock; line < least(count, (block + 1) * kBlock); ++line) {
            const T* __restrict from = values + line * channels;
            for (std::int64_t c = 0; c < channels; ++c) sum[c] += from[c];
        }
    }
    for (std::int64_t c = 0; c < channels; ++c) out[c] = 0;
    for (std::int64_t block = 0; block < blocks; ++block)
        for (std::int64_t c = 0; c < channels; ++c) out[c] += partial[block * channels + c];
}

template <class T>
void mean(const T* x, T* out, const Convolution& c, int threads) {
    static Scratch<T> scratch;
    const std::int64_t channels = c.in.channels, line = c.in.columns * channels;
    T* total = scratch.get(c.in.rows * line);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t row = 0; row < c.in.rows; ++row) {
        T* __restrict to = total + row * line;
        for (std::int64_t i = 0; i < line; ++i) to[i] = 0;
        for (std::int64_t image = 0; image < c.in.batch; ++image) {
            const T* __restrict from = x + (image * c.in.rows + row) * line;
            for (std::int64_t i = 0; i < line; ++i) to[i] += from[i];
        }
    }
    const T count = T(c.in.batch * c.out.rows * c.out.columns);
    for (std::int64_t tap = 0; tap < c.size * c.size; ++tap) {
        T* __restrict to = out + tap * channels;
        for (std::int64_t i = 0; i < channels; ++i) to[i] = 0;
        for (std::int64_t place = 0; place < c.out.rows * c.out.columns; ++place) {
            const std::int64_t y = place / c.out.columns * c.stride + tap / c.size - c.padding;
            const std::int64_t x_ = place % c.out.columns * c.stride + tap % c.size - c.padding;
            if (y < 0 || y >= c.in.rows || x_ < 0 || x_ >= c.in.columns) continue;
            const T* __restrict from = total + y * line + x_ * channels;
            for (std::int64_t i = 0; i < channels; ++i) to[i] += from[i];
        }
        for (std::int64_t i = 0; i < channels; ++i) to[i] /= count;
    }
}

template <class T>
void finish(T* change, const T* beta, const T* mean, const Bank& bank, double count, int threads) {
    const std::int64_t lines = bank.columns ? bank.inputs : bank.outputs;
    const std::int64_t length = bank.columns ? bank.outputs : bank.inputs;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t line = 0; line < lines; ++line) {
        T* at = change + line * length;
        if (bank.columns) finish_line<true>(at, beta, mean, line, length, T(count));
        else finish_line<false>(at, beta, mean, line, length, T(count));
    }
}

template <class T>
void learn(const T* change, const T* base, T* hebbian, T* steered, T* weight, const Bank& bank,
           const Step<T>& step, int threads) {
    const std::int64_t lines = bank.columns ? bank.inputs : bank.outputs;
    const std::int64_t length = bank.columns ? bank.outputs : bank.inputs;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t line = 0; line < lines; ++line) {
        const std::int64_t at = line * length;
        T* third = steered ? steered + at : nullptr;
        T* sum = weight ? weight + at : nullptr;
        if (bank.columns)
            learn_line<true>(change + at, base + at, hebbian + at, third, sum, line, length, step);
        else
            learn_line<false>(change + at, base + at, hebbian + at, third, sum, line, length, step);
    }
}

template <class T>
void decay_add(T* trace, const T* gradient, T* total, std::int64_t count, double decay,
               int threads) {
    const T d = T(decay);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t begin = 0; begin < count; begin += kChunk) {
        T *__restrict e = trace + begin, *__restrict s = total + begin;
        const T* __restrict g = gradient + begin;
        for (std::int64_t i = 0; i < least(kChunk, count - begin); ++i) {
            e[i] = e[i] * d + g[i];
            s[i] += g[i];
        }
    }
}

template <class T>
void dot(const T* a, const T* b, T* out, const Bank& bank, bool shared, int threads) {
    if (!bank.columns) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t line = 0; line < bank.outputs; ++line) {
            const T *x = a + line * bank.inputs, *y = shared ? b : b + line * bank.inputs;
            T sum = 0;
#pragma omp simd reduction(+ : sum)
            for (std::int64_t i = 0; i < bank.inputs; ++i) sum += x[i] * y[i];
            out[line] = sum;
        }
        return;
    }
    const std::int64_t n = bank.outputs, blocks = (bank.inputs + kBlock - 1) / kBlock;
    static Scratch<T> scratch;
    T* partial = scratch.get(blocks * n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t block = 0; block < blocks; ++block) {
        T* __restrict sum = partial + block * n;
        for (std::int64_t i = 0; i < n; ++i) sum[i] = 0;
        const std::int64_t end = least(bank.inputs, (block + 1) * kBlock);
        for (std::int64_t line = block * kBlock; line < end; ++line) {
            const T *__restrict x = a + line * n, *__restrict y = b + line * n;
            if (shared)
                for (std::int64_t i = 0; i < n; ++i) sum[i] += x[i] * b[line];
            else
                for (std::int64_t i = 0; i < n; ++i) sum[i] += x[i] * y[i];
        }
    }
    for (std::int64_t i = 0; i < n; ++i) out[i] = 0;
    for (std::int64_t block = 0; block < blocks; ++block)
        for (std::int64_t i = 0; i < n; ++i) out[i] += partial[block * n + i];
}

template <class T>
void transpose(const T* in, T* out, std::int64_t rows, std::int64_t columns, int threads) {
    constexpr std::int64_t side = 64 / sizeof(T);  // a cache line each way
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t top = 0; top < rows; top += side) {
        const std::int64_t bottom = least(rows, top + side);
        for (std::int64_t left = 0; left < columns; left += side)
            for (std::int64_t x = left; x < least(columns, left + side); ++x)
                for (std::int64_t y = top; y < bottom; ++y)
                    out[x * rows + y] = in[y * columns + x];
    }
}

}  // namespace

}  // namespace mpsl
