// Who may work with a network: one caller at a time, without the interpreter's lock, until he is
// told to stop.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>

#include "network.hpp"

namespace mpsl {

// Handlers of signals run here, as they do between two lines of Python; true: one has raised. Only
// the main thread has any to run.
bool python_asks_to_stop();

class Running {
public:
    // Throws Stopped while it waits for another caller, and std::invalid_argument where a handler
    // of signals calls the network that it has interrupted.
    explicit Running(Network& network);
    ~Running();
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

private:
    nanobind::gil_scoped_release release_;  // first, or who waits would block who works
    Network& network_;
};

// What a handler has raised goes on as if nothing had come between.
void translate_stopped(const std::exception_ptr& thrown, void*);

}  // namespace mpsl
