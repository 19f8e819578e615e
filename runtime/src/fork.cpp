// A second network with a state of its own, and the weights of the first.
#include "network.hpp"

namespace mpsl {

Network::Network(const Network& like)
    : kernels_(like.kernels_), workers_(like.workers_.threads()),
      input_(like.input_.extent, Signal::Active),
      first_population_stage_(like.first_population_stage_), is_chain_(like.is_chain_),
      tip_(nullptr) {
    like.check_finished();
    workers_.watch.begin();
    ForkedSignals signals;
    signals.add(like.input_, input_);
    for (const auto& late : like.late_) {
        late_.push_back(late ? late->fork() : nullptr);
        if (late) signals.add(late->output, late_.back()->output);
    }
    for (const auto& stage : like.stages_) {
        stages_.push_back(stage->fork(workers_, signals));
        Stage* const made = stages_.back().get();
        signals.add(stage->result(), made->result());
        if (auto* const found = dynamic_cast<PopulationStage*>(made)) populations_.push_back(found);
        if (auto* const found = dynamic_cast<DelayStage*>(made)) delays_.push_back(found);
    }
    for (std::size_t i = 0; i < late_.size(); ++i)
        if (late_[i]) late_[i]->follow(signals.of(like.late_[i]->source()));
    if (like.output_) output_ = &signals.of(*like.output_);
    finished_ = true;
    input_.write_active();
    rest();
}

std::size_t Network::shared_bytes() const {
    std::size_t bytes = 0;
    for (const auto& stage : stages_) bytes += stage->shared_bytes();
    return bytes;
}

}  // namespace mpsl
