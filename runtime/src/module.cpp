#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.doc() = "The event-driven engine; use it through mpsl_runtime.engine.";
}
