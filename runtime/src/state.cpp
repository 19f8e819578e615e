#include "network.hpp"

namespace mpsl {

std::size_t Network::state_size() const {
    std::size_t size = 0;
    for (const PopulationStage* stage : populations_) size += stage->population.size();
    return size;
}

std::size_t Network::synapse_size() const {
    std::size_t size = 0;
    for (const PopulationStage* stage : populations_)
        if (stage->population.has_synapse()) size += stage->population.size();
    return size;
}

std::size_t Network::late_size() const {
    std::size_t size = 0;
    for (const auto& late : late_)
        if (late) size = sum(size, late->state_size());
    for (const DelayStage* delay : delays_) size = sum(size, delay->state_size());
    return size;
}

void Network::copy_state(float* V, float* J, std::uint8_t* S, float* late) {
    for (const PopulationStage* stage : populations_) {
        const Population& population = stage->population;
        population.copy_state(V, J);
        population.copy_spikes(S);
        V += population.size();
        S += population.size();
        if (population.has_synapse()) J += population.size();
    }
    for (const auto& one : late_) {
        if (!one) continue;
        one->copy_state(late);
        late += one->state_size();
    }
    for (const DelayStage* delay : delays_) {
        delay->copy_state(late);
        late += delay->state_size();
    }
}

void Network::restore(const float* V, const float* J, const std::uint8_t* S, const float* late,
                      std::uint64_t steps, std::uint64_t synops) {
    for (PopulationStage* stage : populations_) {
        Population& population = stage->population;
        population.restore(V, J, S);
        V += population.size();
        S += population.size();
        if (population.has_synapse()) J += population.size();
    }
    for (const auto& one : late_) {
        if (!one) continue;
        one->restore(late);
        late += one->state_size();
    }
    for (DelayStage* delay : delays_) {
        delay->restore(late);
        late += delay->state_size();
    }
    steps_ = steps;
    synops_ = synops;
}

}  // namespace mpsl
