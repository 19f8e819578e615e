// How fast this core adds rows of weights: what no layer can pass.
#pragma once

#include "kernels.hpp"

namespace mpsl {

// 10^9 weights added a second, from rows that lie in the first- and in the second-level cache.
struct Roofline {
    double float32_l1, float32_l2, int8_l1, int8_l2;
};

// Runs the loops of the layers themselves; takes about 0.15 s.
Roofline measure_roofline(const Kernels& kernels);

}  // namespace mpsl
