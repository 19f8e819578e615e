// How fast this core adds rows of weights: what no layer can pass.
#pragma once

#include "kernels.hpp"

namespace mpsl {

// 10^9 weights added a second, from rows that lie in the first-, in the second- and in the third-level
// cache.
struct Roofline {
    double float32_l1, float32_l2, float32_l3, int8_l1, int8_l2, int8_l3;
};

// Runs the loops of the layers themselves; takes about 0.2 s.
Roofline measure_roofline(const Kernels& kernels);

}  // namespace mpsl
