// Stages of a network that is no chain: sums, delays, and what the step before has left.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "signal.hpp"
#include "stages.hpp"

namespace mpsl {

// The sum over signals of one size, added in their order; the spikes behind a value add up too.
class SumStage : public Stage {
public:
    SumStage(std::vector<Signal*> sources, Extent extent);
    std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const override;
    Signal& result() override { return output; }
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override { return output.bytes(); }

    Signal output;

private:
    const std::vector<Signal*> sources_;
};

// Every value arrives `steps` later, for each element its own number of steps.
class DelayStage : public Stage {
public:
    // steps [channel][row][column], ≥ 0
    DelayStage(Signal& source, const std::int32_t* steps);
    DelayStage(const DelayStage& like, const ForkedSignals& signals)
        : output(like.output), source_(signals.of(like.source_)), steps_(like.steps_),
          arriving_(like.arriving_.size()) {}
    std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const override;
    Signal& result() override { return output; }
    std::uint64_t run(Current current) override;
    void rest() override;
    std::size_t bytes() const override;
    std::size_t shared_bytes() const override { return steps_->bytes(); }

    // What will arrive: [step to come][value].
    std::size_t state_size() const { return product(arriving_.size() - 1, steps_->size()); }
    void copy_state(float* to) const;
    void restore(const float* from);

    Signal output;

private:
    Signal& source_;
    std::shared_ptr<const Buffer<std::int32_t>> steps_;
    std::vector<std::vector<ActiveValue>> arriving_;  // ring over the steps to come
    std::size_t now_ = 0;
};

// A signal as it was in the step before; nothing before the first step. Its source may be made
// later than itself.
class LateSignal {
public:
    // `spikes`: the source holds bits.
    LateSignal(Extent extent, bool spikes);
    std::unique_ptr<LateSignal> fork() const;

    // Throws std::invalid_argument where it is another kind of signal.
    void follow(Signal& source);
    bool is_bound() const { return source_; }
    const Signal& source() const { return *source_; }
    // At the end of a step.
    void take();
    void rest();
    std::size_t bytes() const { return output.bytes(); }

    // Values, then the spikes behind each.
    std::size_t state_size() const { return product(output.extent.size(), 2); }
    void copy_state(float* to);
    void restore(const float* from);

    Signal output;

private:
    const bool spikes_;
    Signal* source_ = nullptr;
};

}  // namespace mpsl
