// The functions of `Kernels` for one instruction set, whose name is also that of the namespace.
#pragma once

#include "kernels.hpp"

#define MPSL_FUNCTIONS(isa)                                                                       \
    namespace mpsl::isa {                                                                         \
    template <class T>                                                                            \
    void fire(T*, T*, std::uint8_t*, std::uint8_t*, std::int64_t, const Neuron&, bool, bool,      \
              bool, int);                                                                         \
    template <class T>                                                                            \
    void pool(const std::uint8_t*, T*, const Shape&, std::int64_t, int);                          \
    template <class T>                                                                            \
    void unfire(const T*, T*, const std::uint8_t*, const Shape&, std::int64_t, const Neuron&,     \
                bool, int);                                                                       \
    template <class T>                                                                            \
    void sums(const T*, T*, std::int64_t, std::int64_t, int);                                     \
    template <class T>                                                                            \
    void finish(T*, const T*, const T*, const Bank&, double, int);                                \
    template <class T>                                                                            \
    void learn(const T*, const T*, T*, T*, T*, const Bank&, const Step<T>&, int);                 \
    template <class T>                                                                            \
    void decay_add(T*, const T*, T*, std::int64_t, double, int);                                  \
    template <class T>                                                                            \
    void dot(const T*, const T*, T*, const Bank&, bool, int);                                     \
    template <class T>                                                                            \
    void transpose(const T*, T*, std::int64_t, std::int64_t, int);                                \
    template <class T>                                                                            \
    void convolve(const T*, const T*, const T*, T*, const Convolution&, std::int64_t,             \
                  std::int64_t, bool, int);                                                       \
    template <class T>                                                                            \
    void correlate(const T*, const T*, T*, const Convolution&, bool, int);                        \
    template <class T>                                                                            \
    void mean(const T*, T*, const Convolution&, int);                                             \
    template <class T>                                                                            \
    std::int64_t nonzero(const T*, std::int64_t, int);                                            \
    }
