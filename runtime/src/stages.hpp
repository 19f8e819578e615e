// What a step consists of, in order of execution.
#pragma once

#include <cstdint>
#include <memory>

#include "connection.hpp"
#include "population.hpp"
#include "signal.hpp"

namespace mpsl {

// An input that does not change from step to step gives the same current: it is computed once.
enum class Current { Compute, ComputeAndHold, Reuse };

class Stage {
public:
    virtual ~Stage() = default;
    // Returns the synaptic operations of this step.
    virtual std::uint64_t run(Current current) = 0;
    virtual std::size_t bytes() const = 0;
};

// Weights (or none) and the neurons behind them.
class PopulationStage : public Stage {
public:
    PopulationStage(const Kernels& kernels, std::unique_ptr<Connection> connection,
                    const NeuronParameters& parameters);
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override;

    Population population;

private:
    void fire(int block, Sum* current, bool clear);

    std::unique_ptr<Connection> connection_;
    Buffer<Sum> current_;  // [block of one go][pixel][width], zero between steps
    Buffer<Sum> held_;      // [block][pixel][width], of the constant input
    std::uint64_t held_synops_ = 0;
};

// Weights with no neurons behind them: current and bias become values.
class WeightStage : public Stage {
public:
    explicit WeightStage(std::unique_ptr<Connection> connection);
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override;

    Signal output;

private:
    std::unique_ptr<Connection> connection_;
    Buffer<Sum> current_;  // [block of one go][pixel][width]
};

struct PoolingShape {
    Axis rows, columns;
    float scale;
};

// Sums over any windows. 2x2 windows over spikes never come here, see Network::add_pooling.
class PoolingStage : public Stage {
public:
    PoolingStage(Signal& source, const PoolingShape& shape);
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override { return output.bytes(); }

    Signal output;

private:
    Signal& source_;
    const PoolingShape shape_;
};

class ScalingStage : public Stage {
public:
    // scale [channel][row][column]
    ScalingStage(Signal& source, const float* scale);
    std::uint64_t run(Current current) override;
    std::size_t bytes() const override { return output.bytes() + scale_.bytes(); }

    Signal output;

private:
    Signal& source_;
    Buffer<float> scale_;
};

}  // namespace mpsl
