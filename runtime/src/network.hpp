// A spiking network that does work in proportion to its spikes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "branches.hpp"
#include "stages.hpp"
#include "turns.hpp"
#include "workers.hpp"

namespace mpsl {

struct ConvolutionOptions {
    std::int64_t filters, kernel_rows, kernel_columns;
    std::int64_t stride_rows, stride_columns;
    std::int64_t top, bottom, left, right;  // padding
    std::int64_t dilation_rows, dilation_columns;
    std::int64_t groups;
};

struct PoolingOptions {
    std::int64_t kernel_rows, kernel_columns, stride_rows, stride_columns, pad_rows, pad_columns;
    float scale;
};

// Built node by node in order of execution, then `finish`ed, then stepped. Every method throws
// std::invalid_argument or std::length_error on what does not fit; stepping then leaves the network
// as it was. What takes long throws Stopped where `watch` says so, and std::bad_alloc may come at
// any time: the network is at rest then, as after `reset`.
class Network {
public:
    // `threads`: that share the work of a step; the same bits from any number.
    explicit Network(Extent input, int threads = 1);
    // A fork: the same network at rest. Weights, and all else that never changes, are shared.
    // Throws std::invalid_argument where `like` is not finished.
    Network(const Network& like);

    // int8 weights: the caller has proven that no current exceeds 2^24 quanta
    // (mpsl_runtime/model/grid.py), so that float32 holds it exactly.
    void add_convolution(const ConvolutionOptions& options, Weights weight, const float* bias,
                         std::size_t bias_size);
    void add_dense(std::int64_t out, Weights weight, const float* bias, std::size_t bias_size);
    void add_pooling(const PoolingOptions& options);
    void add_scaling(const Values& scale);
    // Every array of `parameters` has as many values as there are neurons, or one.
    void add_neurons(const NeuronParameters& parameters);

    // For what is no chain. Signals have numbers: 0 is the input, others as they were marked.
    // What was added last, from now on with a number of its own.
    std::size_t mark();
    // A number for what another signal was in the step before; it is known by `follow` later.
    std::size_t add_late(Extent extent, bool spikes);
    void follow(std::size_t late, std::size_t source);
    // The next node sees the sum of these signals, as `extent`.
    void see(const std::vector<std::size_t>& sources, Extent extent);
    // steps [size] of what was added last, or is seen.
    void add_delay(const std::int32_t* steps, std::size_t size);
    // The last node's output, which need not be spikes, is that of the network.
    void finish();

    void reset();
    // All populations one after the other: V and S [state_size], J [synapse_size]; what this step
    // has left to later ones [late_size].
    void copy_state(float* V, float* J, std::uint8_t* S, float* late);
    void restore(const float* V, const float* J, const std::uint8_t* S, const float* late,
                 std::uint64_t steps, std::uint64_t synops);
    std::size_t state_size() const;
    std::size_t synapse_size() const;
    std::size_t late_size() const;
    // frame [channels][rows][columns] -> output [output_size].
    void step(const float* frame, std::size_t size, float* output, std::size_t output_size);
    // The values that are not zero; addresses in ascending order, none twice.
    void step_sparse(const std::int32_t* address, const float* value, std::size_t count,
                     float* output, std::size_t output_size);
    // Resets, then T steps. `constant`: there is one frame, the same for every step.
    void run(const float* frames, std::size_t size, std::size_t steps, bool constant,
             float* output, std::size_t output_size);

    std::size_t populations() const { return populations_.size(); }
    // Before the population `index`: float32 weights in the place of its own, as many and in the same
    // order, for the steps to come of this network alone. Throws std::invalid_argument too where
    // these are int8, and std::out_of_range.
    void replace_weights(std::size_t index, Weights weight);
    // Throws std::out_of_range.
    Population& population(std::size_t index) { return populations_.at(index)->population; }
    // Of the weights before each population, see Connection.
    std::vector<double> crossovers() const;
    // Of each population: how many neurons fired in the last step.
    std::vector<std::uint64_t> fired() const;
    std::size_t input_size() const { return input_.extent.size(); }
    std::size_t output_size() const;
    std::uint64_t steps() const { return steps_; }  // since the last reset
    std::uint64_t synops() const { return synops_; }
    std::size_t bytes() const;
    std::size_t shared_bytes() const;  // of these, what all forks share
    // Throws std::invalid_argument where more nodes may still come.
    void check_finished() const;
    const char* isa() const { return kernels_.name; }
    Watch& watch() { return workers_.watch; }

    // Two threads may share an engine, one after the other.
    Turns turns;

private:
    Source take_source();
    Extent seen() const;
    void materialise();
    void rest();
    void check_building() const;
    void check_running(std::size_t output_size) const;
    static void check_values(const char* what, const Values& values, std::size_t size,
                             bool finite);
    void load_frame(const float* frame);
    void advance(Current current, float* output);
    template <class Work>
    void guarded(Work work);

    const Kernels& kernels_;
    Workers workers_;
    Signal input_;
    std::vector<std::unique_ptr<Stage>> stages_;
    std::vector<PopulationStage*> populations_;
    std::size_t first_population_stage_ = 0;
    bool finished_ = false;
    bool is_chain_ = true;
    std::vector<Signal*> signals_;  // by number
    // By number; null where a signal is no late one.
    std::vector<std::unique_ptr<LateSignal>> late_;
    std::vector<DelayStage*> delays_;
    Signal* output_ = nullptr;  // null: that of the last population

    // While building: the signal that the next node sees, what is not yet a stage.
    Signal* tip_;
    std::unique_ptr<Connection> pending_connection_;
    bool pending_pool_ = false;  // 2x2 over spikes, to become part of the next weights
    float pending_scale_ = 1;

    Buffer<std::uint32_t> nonzero_;  // scratch
    std::uint64_t steps_ = 0;
    std::uint64_t synops_ = 0;
    std::uint64_t held_synops_ = 0;  // of the stages before the first population
};

}  // namespace mpsl
