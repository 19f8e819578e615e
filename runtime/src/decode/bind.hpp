// The decoders as Python sees them.
#pragma once

#include <nanobind/nanobind.h>

namespace mpsl::decode {

void bind(nanobind::module_& m);

}  // namespace mpsl::decode
