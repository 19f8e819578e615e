// Convolutions over the entries of the input that are not zero: spikes, and means of a few spikes.
//
// A list of them is made for each pixel. The current of an output is then a sum of rows of the
// weight, and the weight's gradient of one input a sum of patches of the outputs' gradient: long
// vectors along the outputs in both, whose accumulators stay in registers.
#pragma once

#include "kernels.hpp"
#include "scratch.hpp"
#include "vectors.hpp"

namespace mpsl {

namespace {

constexpr Int kGroup = 1 << 20;    // entries of the input that are listed at a time
constexpr Int kSlab = 32 << 10;    // bytes of a part of the operand that is read again and again
constexpr Int kOutputs = 256 << 10;  // bytes of the outputs that are written again and again
// Vectors of a block; more registers hold more of them.
constexpr int kWide = kVectorBytes == 64 ? 4 : 2;
constexpr int kPatch = kVectorBytes == 64 ? 2 : 1;

template <class T>
struct Lists {
    std::int32_t *start, *channel;  // start: [images, pixels + 1]
    T* value;
    Int pixels;
};

// The entries of some images, pixel by pixel. `again`: they are those of the call before.
template <class T>
Lists<T> list_entries(const T* x, const Shape& shape, Int images, bool again, int threads) {
    static Scratch<std::int32_t> starts, channels;
    static Scratch<T> values;
    const Int pixels = shape.rows * shape.columns, size = pixels * shape.channels;
    const Lists<T> lists{starts.get(images * (pixels + 1)), channels.get(images * size),
                         values.get(images * size), pixels};
    if (again) return lists;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int image = 0; image < images; ++image) {
        std::int32_t k = std::int32_t(image * size);
        const T* from = x + image * size;
        for (Int pixel = 0; pixel < pixels; ++pixel) {
            lists.start[image * (pixels + 1) + pixel] = k;
            for (Int c = 0; c < shape.channels; ++c) {
                const T value = from[pixel * shape.channels + c];
                // Written always and kept if it counts: no jump to be guessed wrong.
                lists.channel[k] = std::int32_t(c);
                lists.value[k] = value;
                k += value != 0;
            }
        }
        lists.start[image * (pixels + 1) + pixels] = k;
    }
    return lists;
}

// `present` numbers, then zeros: N vectors.
template <class T, int N>
inline void copy_block(T* to, const T* from, Int present) {
    using V = typename Vector<T>::type;
    constexpr Int lanes = Vector<T>::lanes;
    if (present == N * lanes) {
        for (int z = 0; z < N; ++z)
            *reinterpret_cast<V*>(to + z * lanes) = *reinterpret_cast<const V*>(from + z * lanes);
        return;
    }
    for (Int z = 0; z < N * lanes; ++z) to[z] = z < present ? from[z] : T(0);
}

struct Weights {
    Int tap_stride, in_stride, taps;
    bool flipped;
    Int at(Int tap, Int in) const {
        return (flipped ? taps - 1 - tap : tap) * tap_stride + in * in_stride;
    }
};

// Outputs [from, from + N vectors) of images [first, last) of a group.
template <class T, int N>
void forward_block(const Lists<T>& lists, const T* weight, const T* bias, T* out, Int line,
                   const Convolution& c, const Weights& how, Int from, Int first, Int last,
                   T* slab) {
    using V = typename Vector<T>::type;
    constexpr Int lanes = Vector<T>::lanes, width = N * lanes;
    const Int inputs = c.in.channels, present = least(width, c.out.channels - from);
    const Int pass = most(1, kSlab / Int(inputs * width * sizeof(T)));
    for (Int tap = 0; tap < how.taps; tap += pass) {
        const Int end = least(how.taps, tap + pass);
        for (Int t = tap; t < end; ++t)
            for (Int i = 0; i < inputs; ++i) {
                T* to = slab + ((t - tap) * inputs + i) * width;
                copy_block<T, N>(to, weight + how.at(t, i) + from, present);
            }
        for (Int place = first * c.out.rows; place < last * c.out.rows; ++place) {
            const Int image = place / c.out.rows, row = place % c.out.rows;
            const std::int32_t* start = lists.start + image * (lists.pixels + 1);
            for (Int column = 0; column < c.out.columns; ++column) {
                T* o = out + (place * c.out.columns + column) * line + from;
                V a[N], b[N];
                for (int z = 0; z < N; ++z) {
                    b[z] = V{};
                    if (tap) a[z] = *reinterpret_cast<const V*>(o + z * lanes);
                    else if (bias) a[z] = *reinterpret_cast<const V*>(bias + from + z * lanes);
                    else a[z] = V{};
                }
                for (Int t = tap; t < end; ++t) {
                    const Int y = row * c.stride + t / c.size - c.padding;
                    const Int x = column * c.stride + t % c.size - c.padding;
                    if (y < 0 || y >= c.in.rows || x < 0 || x >= c.in.columns) continue;
                    const std::int32_t* s = start + y * c.in.columns + x;
                    std::int32_t e = s[0];
                    const std::int32_t n = s[1];
                    const T* rows = slab + (t - tap) * inputs * width;
                    for (; e + 1 < n; e += 2) {
                        const T* p = rows + lists.channel[e] * width;
                        const T* q = rows + lists.channel[e + 1] * width;
                        const V v = splat(lists.value[e]), u = splat(lists.value[e + 1]);
                        for (int z = 0; z < N; ++z) {
                            a[z] = multiply_add(v, *reinterpret_cast<const V*>(p + z * lanes), a[z]);
                            b[z] = multiply_add(u, *reinterpret_cast<const V*>(q + z * lanes), b[z]);
                        }
                    }
                    if (e < n) {
                        const T* p = rows + lists.channel[e] * width;
                        const V v = splat(lists.value[e]);
                        for (int z = 0; z < N; ++z)
                            a[z] = multiply_add(v, *reinterpret_cast<const V*>(p + z * lanes), a[z]);
                    }
                }
                for (int z = 0; z < N; ++z) *reinterpret_cast<V*>(o + z * lanes) = a[z] + b[z];
            }
        }
    }
}

// Input rows [first, last) of `images` images whose gradient patches lie in one slab.
struct Unit {
    Int image, images, first, last;
};

template <class T>
struct Entries {
    std::int32_t *start, *place;  // start: [units, Ci + 1]; place: of a pixel in the slab
    T* value;
};

// ∂L/∂weight of outputs [from, from + N vectors), summed over the units. A pixel (y, x) meets the
// gradient at (y + padding − ky, x + padding − kx); the slab has a border of zeros for those outside.
template <class T, int N>
void patch_block(const Entries<T>& entries, const Unit* units, Int count, const T* g, T* out,
                 Int line, const Convolution& c, Int from, T* slab) {
    using V = typename Vector<T>::type;
    constexpr Int lanes = Vector<T>::lanes, width = N * lanes;
    const Int inputs = c.in.channels, present = least(width, c.out.channels - from);
    const Int across = c.in.columns + 2, down = across * width;
    for (Int number = 0; number < count; ++number) {
        const Unit& unit = units[number];
        const Int rows = unit.last - unit.first + 2;
        T* to = slab;
        for (Int line_number = 0; line_number < unit.images * rows; ++line_number) {
            const Int image = unit.image + line_number / rows;
            const Int y = line_number % rows + unit.first - 2 + c.padding;
            const bool inside = y >= 0 && y < c.out.rows;
            const T* given = g + ((image * c.out.rows + (inside ? y : 0)) * c.out.columns) *
                                     c.out.channels + from;
            for (Int x = c.padding - 2; x < across - 2 + c.padding; ++x, to += width) {
                const bool here = inside && x >= 0 && x < c.out.columns;
                copy_block<T, N>(to, given + (here ? x : 0) * c.out.channels, here ? present : 0);
            }
        }
        const std::int32_t* start = entries.start + number * (inputs + 1);
        for (Int i = 0; i < inputs; ++i) {
            std::int32_t e = start[i];
            const std::int32_t n = start[i + 1];
            if (e == n) continue;
            V a[9 * N];
#pragma GCC unroll 9
            for (Int k = 0; k < 9; ++k)
#pragma GCC unroll 2
                for (int z = 0; z < N; ++z)
                    a[k * N + z] = *reinterpret_cast<const V*>(out + (k * inputs + i) * line +
                                                               from + z * lanes);
            for (; e < n; ++e) {
                const T* patch[3];
                patch[0] = slab + Int(entries.place[e]) * width;
                patch[1] = patch[0] - down;
                patch[2] = patch[1] - down;
                const V v = splat(entries.value[e]);
#pragma GCC unroll 9
                for (Int k = 0; k < 9; ++k)
#pragma GCC unroll 2
                    for (int z = 0; z < N; ++z)
                        a[k * N + z] = multiply_add(
                            v, *reinterpret_cast<const V*>(patch[k / 3] - k % 3 * width + z * lanes),
                            a[k * N + z]);
            }
#pragma GCC unroll 9
            for (Int k = 0; k < 9; ++k)
#pragma GCC unroll 2
                for (int z = 0; z < N; ++z)
                    *reinterpret_cast<V*>(out + (k * inputs + i) * line + from + z * lanes) =
                        a[k * N + z];
        }
    }
}

// The entries of a group of images again, now channel by channel within each unit.
template <class T>
Entries<T> sort_entries(const Lists<T>& lists, const Unit* units, Int count, const Shape& shape,
                        int threads) {
    static Scratch<std::int32_t> starts, places;
    static Scratch<T> values;
    const Int pixels = lists.pixels, inputs = shape.channels, across = shape.columns + 2;
    const Int images = units[count - 1].image + units[count - 1].images;
    const Entries<T> sorted{starts.get(count * (inputs + 1)), places.get(images * pixels * inputs),
                            values.get(images * pixels * inputs)};
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int number = 0; number < count; ++number) {
        const Unit& unit = units[number];
        const Int first = unit.first * shape.columns, last = unit.last * shape.columns;
        const Int rows = unit.last - unit.first + 2;
        std::int32_t* start = sorted.start + number * (inputs + 1);
        for (Int i = 0; i <= inputs; ++i) start[i] = 0;
        for (Int m = 0; m < unit.images; ++m) {
            const std::int32_t* s = lists.start + (unit.image + m) * (pixels + 1);
            for (std::int32_t e = s[first]; e < s[last]; ++e) ++start[lists.channel[e] + 1];
        }
        // Here start[i + 1] counts channel i; below it is the next free place of channel i, which
        // in the end is where channel i + 1 begins.
        std::int32_t at = std::int32_t(((unit.image * shape.rows) + unit.first) * shape.columns * inputs);
        start[0] = at;
        for (Int i = 0; i < inputs; ++i) {
            const std::int32_t here = start[i + 1];
            start[i + 1] = at;
            at += here;
        }
        for (Int m = 0; m < unit.images; ++m) {
            const std::int32_t* s = lists.start + (unit.image + m) * (pixels + 1);
            for (Int pixel = first; pixel < last; ++pixel) {
                const Int y = pixel / shape.columns - unit.first, x = pixel % shape.columns;
                const std::int32_t place = std::int32_t((m * rows + y + 2) * across + x + 2);
                for (std::int32_t e = s[pixel]; e < s[pixel + 1]; ++e) {
                    const std::int32_t to = start[lists.channel[e] + 1]++;
                    sorted.place[to] = place;
                    sorted.value[to] = lists.value[e];
                }
            }
        }
    }
    return sorted;
}

template <class T>
Int padded(Int outputs) {
    return (outputs + Vector<T>::lanes - 1) / Vector<T>::lanes * Vector<T>::lanes;
}

template <class T>
void narrow(const T* wide, Int line, T* out, Int rows, Int columns) {
    for (Int row = 0; row < rows; ++row)
        for (Int i = 0; i < columns; ++i) out[row * columns + i] = wide[row * line + i];
}

template <class T>
void convolve(const T* x, const T* weight, const T* bias, T* out, const Convolution& c,
              std::int64_t tap_stride, std::int64_t in_stride, bool flipped, int threads) {
    static Scratch<T> slabs, wide, biases;
    constexpr Int lanes = Vector<T>::lanes;
    const Weights how{tap_stride, in_stride, c.size * c.size, flipped};
    const Int line = padded<T>(c.out.channels), vectors = line / lanes;
    const Int in_size = c.in.rows * c.in.columns * c.in.channels;
    const Int out_pixels = c.out.rows * c.out.columns;
    const Int group = least(c.in.batch, most(threads, kGroup / most(1, in_size)));
    T* target = line == c.out.channels ? out : wide.get(group * out_pixels * line);
    if (bias) {
        T* full = biases.get(line);
        for (Int i = 0; i < line; ++i) full[i] = i < c.out.channels ? bias[i] : T(0);
        bias = full;
    }
    const Int slab = most(kSlab, c.in.channels * kWide * lanes * Int(sizeof(T))) / sizeof(T) + 64;
    T* slabs_now = slabs.get(slab * threads);
    const Int blocks = (vectors + kWide - 1) / kWide;
    const Int near = most(1, kOutputs / Int(out_pixels * kWide * lanes * sizeof(T)));
    for (Int begin = 0; begin < c.in.batch; begin += group) {
        const Int images = least(group, c.in.batch - begin), parts = (images + near - 1) / near;
        const Lists<T> lists = list_entries(x + begin * in_size, c.in, images, false, threads);
        T* to = target == out ? out + begin * out_pixels * line : target;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (Int task = 0; task < blocks * parts; ++task) {
            const Int first = task / blocks * near, last = least(images, first + near);
            T* own = slabs_now + this_thread() * slab;
            Int from = task % blocks * kWide * lanes;
            Int left = least(kWide, vectors - from / lanes);
            while (left > 0) {
                if (left >= 4) {
                    forward_block<T, kWide>(lists, weight, bias, to, line, c, how, from, first, last, own);
                    left -= kWide, from += kWide * lanes;
                } else if (left >= 2) {
                    forward_block<T, 2>(lists, weight, bias, to, line, c, how, from, first, last, own);
                    left -= 2, from += 2 * lanes;
                } else {
                    forward_block<T, 1>(lists, weight, bias, to, line, c, how, from, first, last, own);
                    left -= 1, from += lanes;
                }
            }
        }
        if (target != out)
            narrow(target, line, out + begin * out_pixels * c.out.channels, images * out_pixels,
                   c.out.channels);
    }
}

template <class T>
void correlate(const T* x, const T* g, T* out, const Convolution& c, bool again, int threads) {
    static Scratch<T> slabs, wide;
    static Scratch<Unit> all_units;
    constexpr Int lanes = Vector<T>::lanes;
    const Int line = padded<T>(c.out.channels), vectors = line / lanes;
    const Int in_size = c.in.rows * c.in.columns * c.in.channels;
    const Int out_size = c.out.rows * c.out.columns * c.out.channels;
    const Int group = least(c.in.batch, most(threads, kGroup / most(1, in_size)));
    T* target = line == c.out.channels ? out : wide.get(9 * c.in.channels * line);
    for (Int i = 0; i < 9 * c.in.channels * line; ++i) target[i] = 0;
    // Some images, or some rows of one, whose gradient stays in a core's first cache.
    const Int row_bytes = (c.in.columns + 2) * kPatch * kVectorBytes;
    const Int together = most(1, kSlab / ((c.in.rows + 2) * row_bytes));
    const Int strip = least(c.in.rows, most(4, kSlab / row_bytes - 2));
    const Int strips = (c.in.rows + strip - 1) / strip;
    const Int slab = together * (strip + 2) * row_bytes / sizeof(T) + 64;
    T* slabs_now = slabs.get(slab * threads);
    Unit* units = all_units.get(group * strips);
    const Int blocks = (vectors + kPatch - 1) / kPatch;
    for (Int begin = 0; begin < c.in.batch; begin += group) {
        const Int images = least(group, c.in.batch - begin);
        Int count = 0;
        for (Int image = 0; image < images; image += strips == 1 ? together : 1)
            for (Int first = 0; first < c.in.rows; first += strip)
                units[count++] = Unit{image, strips == 1 ? least(together, images - image) : 1,
                                      first, least(c.in.rows, first + strip)};
        const Lists<T> lists = list_entries(x + begin * in_size, c.in, images,
                                            again && group == c.in.batch, threads);
        const Entries<T> entries = sort_entries(lists, units, count, c.in, threads);
        const T* given = g + begin * out_size;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (Int block = 0; block < blocks; ++block) {
            T* own = slabs_now + this_thread() * slab;
            const Int from = block * kPatch * lanes;
            if (vectors - block * kPatch >= kPatch)
                patch_block<T, kPatch>(entries, units, count, given, target, line, c, from, own);
            else
                patch_block<T, 1>(entries, units, count, given, target, line, c, from, own);
        }
    }
    if (target != out) narrow(target, line, out, 9 * c.in.channels, c.out.channels);
}

}  // namespace

}  // namespace mpsl
