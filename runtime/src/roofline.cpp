#include "roofline.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "buffer.hpp"

namespace mpsl {

namespace {

constexpr int kRows = 64;     // of 256 bytes: half of a small first-level cache
constexpr int kSlabs = 20;    // 320 KiB, beyond any first-level cache
constexpr int kFarSlabs = 384;  // 6 MiB, beyond any second-level cache
constexpr int kPixels = 20;   // outputs that add the rows of one slab
constexpr int kWidth = 256;   // int8 weights of a row; 64 float32
constexpr int kFloatWidth = kWidth / int(sizeof(float));

// The best of many short passes: a pass that was interrupted says nothing of the core.
template <class Pass>
double gsops(double additions, Pass pass) {
    using Clock = std::chrono::steady_clock;
    double best = 1;
    const auto end = Clock::now() + std::chrono::milliseconds(35);
    while (Clock::now() < end) {
        const auto begin = Clock::now();
        for (int i = 0; i < 8; ++i) pass();
        best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count() / 8);
    }
    return additions / best * 1e-9;
}

// Every pixel's list names every row, in an order that no prefetcher knows.
Buffer<std::uint16_t> shuffled_rows(int row_bytes) {
    Buffer<std::uint16_t> lists(kRows + kListSlack);
    for (int i = 0; i < kRows; ++i) lists[i] = std::uint16_t(i * 37 % kRows * row_bytes);
    return lists;
}

Buffer<PixelSpikes> full_pixels() {
    Buffer<PixelSpikes> pixels(kPixels);
    for (int i = 0; i < kPixels; ++i) pixels[i] = {0, 0, 0, kRows};
    return pixels;
}

}  // namespace

Roofline measure_roofline(const Kernels& kernels) {
    const Buffer<PixelSpikes> pixels = full_pixels();
    const std::size_t slab = product(kRows, kFloatWidth), whole_slab = product(kRows, kWidth);

    const Buffer<float> weights(product(slab, kFarSlabs));
    const Buffer<std::uint16_t> offsets = shuffled_rows(kFloatWidth * sizeof(float));
    Buffer<float> current(product(kPixels, kFloatWidth));
    const auto gather = [&](int from, int outputs) {
        GatherJob job{};
        job.slab = weights.data() + from * slab;
        job.offsets = offsets.data();
        job.pixels = pixels.data();
        job.current = current.data();
        job.width = kFloatWidth;
        job.window = {0, 1, 0, outputs, 0, 0, 1, 1, outputs, outputs};
        kernels.gather(job);
    };

    const Buffer<std::int8_t> whole(product(whole_slab, kFarSlabs));
    const Buffer<std::uint16_t> channels = shuffled_rows(1);
    Buffer<std::int32_t> sums(product(kPixels, kWidth));
    const auto gather_int8 = [&](int from, int outputs) {
        Int8GatherJob job{};
        job.weights = whole.data() + from * whole_slab;
        job.channels = kRows;
        job.lists = channels.data();
        job.pixels = pixels.data();
        job.chunks = 1;
        job.rows = {1, 1, 0, 1, 1};
        job.columns = {1, 1, 0, 1, outputs};
        job.row_begin = 0;
        job.row_end = 1;
        job.column_begin = 0;
        job.column_end = outputs;
        job.current = sums.data();
        job.block_size = std::size_t(kPixels) * 64;
        job.width = kWidth;
        kernels.gather_int8(job);
    };

    const double additions = double(slab) * kPixels, whole_additions = double(whole_slab) * kPixels;
    const auto each_slab = [](int slabs, const auto& loop) {
        for (int from = 0; from < slabs; ++from) loop(from, 1);
    };
    static_assert(kSlabs == kPixels, "passes over one slab and over all add as many rows");
    constexpr double kFar = double(kFarSlabs) / kSlabs;
    return {gsops(additions, [&] { gather(0, kPixels); }),
            gsops(additions, [&] { each_slab(kSlabs, gather); }),
            gsops(additions * kFar, [&] { each_slab(kFarSlabs, gather); }),
            gsops(whole_additions, [&] { gather_int8(0, kPixels); }),
            gsops(whole_additions, [&] { each_slab(kSlabs, gather_int8); }),
            gsops(whole_additions * kFar, [&] { each_slab(kFarSlabs, gather_int8); })};
}

}  // namespace mpsl
