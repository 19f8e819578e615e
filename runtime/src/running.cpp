#include "running.hpp"

namespace mpsl {

bool python_asks_to_stop() {
    const nanobind::gil_scoped_acquire hold;
    return PyErr_CheckSignals() != 0;
}

Running::Running(Network& network) : network_(network) {
    network.turns.take();
    network.watch().begin();
}

Running::~Running() { network_.turns.give(); }

void translate_stopped(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const Stopped&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    }
}

}  // namespace mpsl
