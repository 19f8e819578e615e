#include "running.hpp"

#include <chrono>
#include <stdexcept>
#include <thread>

namespace mpsl {

bool python_asks_to_stop() {
    const nanobind::gil_scoped_acquire hold;
    return PyErr_CheckSignals() != 0;
}

Running::Running(Network& network) : network_(network) {
    if (network.worker == std::this_thread::get_id())
        throw std::invalid_argument("the engine is at work: it cannot be called now");
    constexpr std::chrono::milliseconds kPause(Watch::kPauseMs);
    if (!network.mutex.try_lock())
        while (!network.mutex.try_lock_for(kPause))
            if (python_asks_to_stop()) throw Stopped();
    network.worker = std::this_thread::get_id();
    network.watch().begin();
}

Running::~Running() {
    network_.worker = std::thread::id();
    network_.mutex.unlock();
}

void translate_stopped(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const Stopped&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    }
}

}  // namespace mpsl
