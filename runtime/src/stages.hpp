// What a step consists of, in order of execution.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "connection.hpp"
#include "population.hpp"
#include "signal.hpp"
#include "workers.hpp"

namespace mpsl {

// An input that does not change from step to step gives the same current: it is computed once.
enum class Current { Compute, ComputeAndHold, Reuse };

// The signals of a network -> those of its fork.
class ForkedSignals {
public:
    void add(const Signal& signal, Signal& forked) { forked_[&signal] = &forked; }
    // Throws std::out_of_range where it has none.
    Signal& of(const Signal& signal) const { return *forked_.at(&signal); }

private:
    std::unordered_map<const Signal*, Signal*> forked_;
};

class Stage {
public:
    virtual ~Stage() = default;
    // The same in another network; what never changes is shared.
    virtual std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const = 0;
    virtual Signal& result() = 0;
    // Returns the synaptic operations of this step. Throws Stopped.
    virtual std::uint64_t run(Current current) = 0;
    // After a step that ended early: as if none had been.
    virtual void rest() {}
    virtual std::size_t bytes() const = 0;
    // Of these, what all forks share.
    virtual std::size_t shared_bytes() const { return 0; }
};

// What each thread needs of its own to compute the current of a connection.
class Desks {
public:
    Desks(const Connection& connection, const Workers& workers);

    Sum* current(int worker) { return current_.data() + worker * current_size_; }
    std::size_t current_size() const { return current_size_; }
    void clear() { current_.clear(); }
    std::size_t bytes() const { return current_.bytes(); }

    const int blocks, at_once;  // of the connection
    const int goes;             // tasks: blocks, so many at once

private:
    const std::size_t current_size_;  // of one thread
    Buffer<Sum> current_;             // [thread][block of one go][pixel][width]
};

// Weights (or none) and the neurons behind them.
class PopulationStage : public Stage {
public:
    PopulationStage(const Kernels& kernels, Workers& workers,
                    std::unique_ptr<Connection> connection, const NeuronParameters& parameters);
    PopulationStage(const PopulationStage& like, Workers& workers, const ForkedSignals& signals);
    std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const override;
    Signal& result() override { return population.output(); }
    std::uint64_t run(Current current) override;
    void rest() override;
    std::size_t bytes() const override;
    std::size_t shared_bytes() const override {
        return population.shared_bytes() + connection_->shared_bytes();
    }
    double crossover() const { return connection_->crossover(); }
    Connection& connection() { return *connection_; }

    Population population;

private:
    void accumulate_and_fire(int first_block, RowRange rows, Sum* current);
    void fire(int block, RowRange rows, Sum* current, bool clear);

    Workers& workers_;
    std::unique_ptr<Connection> connection_;
    Desks desks_;       // their current is zero between steps
    Buffer<Sum> held_;  // [block][pixel][width], of the constant input
    std::uint64_t held_synops_ = 0;
};

// Weights with no neurons behind them: current and bias become values.
class WeightStage : public Stage {
public:
    WeightStage(Workers& workers, std::unique_ptr<Connection> connection);
    std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const override;
    Signal& result() override { return output; }
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override;
    std::size_t shared_bytes() const override { return connection_->shared_bytes(); }

    Signal output;

private:
    Workers& workers_;
    std::unique_ptr<Connection> connection_;
    Desks desks_;
};

struct PoolingShape {
    Axis rows, columns;
    float scale;
};

// Sums over any windows. 2x2 windows over spikes never come here, see Network::add_pooling.
class PoolingStage : public Stage {
public:
    PoolingStage(Signal& source, const PoolingShape& shape, Watch& watch);
    std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const override;
    Signal& result() override { return output; }
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override { return output.bytes() + columns_.bytes(); }

    Signal output;

private:
    Signal& source_;
    const PoolingShape shape_;
    Buffer<InputRange> columns_;  // [column of the output]
    Watch& watch_;
};

class ScalingStage : public Stage {
public:
    ScalingStage(Signal& source, const Values& scale);
    ScalingStage(const ScalingStage& like, const ForkedSignals& signals)
        : output(like.output), source_(signals.of(like.source_)), scale_(like.scale_) {}
    std::unique_ptr<Stage> fork(Workers& workers, const ForkedSignals& signals) const override;
    Signal& result() override { return output; }
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override { return output.bytes() + scale_->bytes(); }
    std::size_t shared_bytes() const override { return scale_->bytes(); }

    Signal output;

private:
    Signal& source_;
    std::shared_ptr<const Buffer<float>> scale_;
};

}  // namespace mpsl
