// What live/bind.cpp adds to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace mpsl::live {

void bind(nanobind::module_& m);

}  // namespace mpsl::live
