// The neurons of one layer: their state and their step.
#pragma once

#include <cstdint>
#include <memory>

#include "buffer.hpp"
#include "geometry.hpp"
#include "kernels.hpp"
#include "signal.hpp"

namespace mpsl {

// [channel][row][column] of a population, or one value for all its neurons.
struct Values {
    const float* data = nullptr;
    std::size_t size = 0;

    float operator[](std::size_t i) const { return data[size == 1 ? 0 : i]; }
};

// See Neuron in mpsl_runtime/model/plan.py.
struct NeuronParameters {
    FireJob::Kind kind;
    FireJob::Reset reset;
    bool many;  // a neuron may fire several times in a step
    Values decay, threshold, reset_value;
    Values drop;                            // what a spike takes from U; without data: threshold
    Values gain, leak;                      // without data where there is no input map
    Values synaptic_decay, synaptic_gain;  // without data where there is no synapse
    Values initial;                         // V at rest; without data: 0
};

class Population {
public:
    Population(const Kernels& kernels, BlockLayout layout, const NeuronParameters& parameters);

    void reset();
    // Fires these rows of one block. `current` [pixel of the rows][width] without bias, see
    // FireJob; set to zero afterwards if `clear`.
    void fire(int block, RowRange rows, void* current, float quantum, const float* bias,
              bool clear);
    // After the last block of a step.
    void finish_step();

    // From now on U is kept for `membrane`.
    void keep_membrane();
    // [channel][row][column]
    void copy_spikes(std::uint8_t* to) const;
    // How many neurons fired in the last step.
    std::uint64_t fired() const;
    void copy_membrane(float* to) const;
    void copy_output(float* to) const;
    // All that the next step depends on, [channel][row][column] each; J without a synapse: nothing.
    // Spikes are 0 or 1 here, also of neurons that fire many times.
    void copy_state(float* V, float* J) const;
    // What the copies gave, and the spikes of the last step.
    void restore(const float* V, const float* J, const std::uint8_t* S);
    void restore_membrane(const float* U);

    bool has_synapse() const { return !synapse_.empty(); }
    bool keeps_membrane() const { return !membrane_.empty(); }
    // Its output is values, not bits.
    bool gives_values() const { return integrates() || many_; }
    Signal& output() { return output_; }
    std::size_t size() const { return layout_.extent.size(); }
    std::size_t bytes() const;
    // Of these, what copies share: all that never changes.
    std::size_t shared_bytes() const;

private:
    using Shared = std::shared_ptr<const Buffer<float>>;

    bool integrates() const { return kind_ == FireJob::Integrating; }
    const Buffer<float>& values() const { return many_ ? counts_ : state_; }
    Shared spread(const Values& values, float padding) const;
    void copy_blocks(const Buffer<float>& from, float* to) const;
    void fill_blocks(const float* from, Buffer<float>& to) const;

    const Kernels& kernels_;
    const BlockLayout layout_;
    const FireJob::Kind kind_;
    const FireJob::Reset reset_;
    const bool many_;
    bool uniform_ = false;
    float decay_ = 0, threshold_ = 0, drop_ = 0, reset_value_ = 0;  // where uniform
    // All [block][pixel][width]; null or empty where unused.
    Shared decays_, thresholds_, drops_, reset_values_, gains_, leaks_;
    Shared synaptic_decays_, synaptic_gains_, initial_;
    Buffer<float> synapse_, state_, membrane_, counts_;
    Signal output_;
};

}  // namespace mpsl
