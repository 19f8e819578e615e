// The spikes of one step as lists of row offsets, for every connection that sums rows of weights.
#pragma once

#include <algorithm>
#include <cstdint>

#include "buffer.hpp"
#include "geometry.hpp"
#include "kernels.hpp"
#include "signal.hpp"

namespace mpsl {

class SpikeLists {
public:
    // `input`: as the convolution sees it, after the pool if it is `pooled`. Channels are listed in chunks, each as
    // `step` · its number in the chunk.
    SpikeLists(const Kernels& kernels, bool pooled, Extent input, int chunk_channels, int step)
        : chunks(narrow<int>(units(input.channels, chunk_channels))), kernels_(kernels),
          pooled_(pooled), input_(input), chunk_words_(chunk_channels / 64), step_(step),
          pixels_(product(chunks, input.pixels())),
          // A channel is in at most two of fours, twos and ones. Lists begin at an uint32.
          offsets_(narrow<std::uint32_t>(
              sum(product(input.size(), pooled ? 2 : 1), kListSlack), "list of spikes")) {
        // What a list names, and its length, are uint16.
        narrow<std::uint16_t>(product(chunk_channels, step), "chunk of a list");
        narrow<std::uint16_t>(product(chunk_channels, 2), "chunk of a list");
    }

    // Reads `signal`, before the pool; returns Σ spikes · fanout[pixel].
    std::uint64_t build(const Signal& signal, const std::uint32_t* fanout) {
        std::uint64_t synops = 0;
        std::uint32_t used = 0;
        for (int chunk = 0; chunk < chunks; ++chunk) {
            ListJob job{};
            job.spikes = signal.bits.data();
            job.words = signal.words;
            job.first_word = chunk * chunk_words_;
            job.word_count = std::min(chunk_words_, job.words - job.first_word);
            job.rows = input_.rows;
            job.columns = input_.columns;
            job.source_columns = signal.extent.columns;
            job.pooled = pooled_;
            job.step = step_;
            job.fanout = fanout;
            job.offsets = offsets_.data();
            job.first_offset = used;
            job.pixels = pixels_.data() + chunk * input_.pixels();
            kernels_.build_lists(job);
            used = job.end_offset;
            synops += job.synops;
        }
        return synops;
    }

    const std::uint16_t* offsets() const { return offsets_.data(); }
    const PixelSpikes* pixels(int chunk) const { return pixels_.data() + chunk * input_.pixels(); }
    std::size_t bytes() const { return pixels_.bytes() + offsets_.bytes(); }

    const int chunks;

private:
    const Kernels& kernels_;
    const bool pooled_;
    const Extent input_;
    const int chunk_words_, step_;
    Buffer<PixelSpikes> pixels_;  // [chunk][input pixel]
    Buffer<std::uint16_t> offsets_;
};

}  // namespace mpsl
