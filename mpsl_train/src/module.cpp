// The kernels for Python: addresses and sizes of tensors, which the caller checks (_native.pyi).
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <cstdint>
#include <tuple>

#include "kernels.hpp"

namespace nb = nanobind;

namespace mpsl {

namespace {

using Address = std::uintptr_t;  // 0: not there
using Int = std::int64_t;
using Four = std::tuple<Int, Int, Int, Int>;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

Shape shape_of(const Four& sizes) {
    return {std::get<0>(sizes), std::get<1>(sizes), std::get<2>(sizes), std::get<3>(sizes)};
}

Convolution convolution_of(const Four& in, const Four& out, Int size, Int stride, Int padding) {
    return {shape_of(in), shape_of(out), size, stride, padding};
}

// One set of functions for each type of numbers, under the type's name.
template <class T>
void add(nb::module_& parent, const char* name) {
    nb::module_ m = parent.def_submodule(name);
    m.def("fire", [](Address current, Address membrane, Address fired, Address near, Int count,
                     double decay, double threshold, double width, bool first, bool last,
                     bool activity, int threads) {
        kernels<T>().fire(at<T>(current), at<T>(membrane), at<std::uint8_t>(fired),
                          at<std::uint8_t>(near), count, Neuron{decay, threshold, width}, first,
                          last, activity, threads);
    });
    m.def("pool", [](Address fired, Address out, Four shape, Int size, int threads) {
        kernels<T>().pool(at<std::uint8_t>(fired), at<T>(out), shape_of(shape), size, threads);
    });
    m.def("unfire", [](Address gradient, Address later, Address near, Four shape, Int size,
                       double decay, double threshold, double width, bool first, int threads) {
        kernels<T>().unfire(at<T>(gradient), at<T>(later), at<std::uint8_t>(near), shape_of(shape),
                            size, Neuron{decay, threshold, width}, first, threads);
    });
    m.def("sums", [](Address values, Address out, Int count, Int channels, int threads) {
        kernels<T>().sums(at<T>(values), at<T>(out), count, channels, threads);
    });
    m.def("finish", [](Address change, Address beta, Address mean, Int outputs, Int inputs,
                       bool columns, double count, int threads) {
        kernels<T>().finish(at<T>(change), at<T>(beta), at<T>(mean), Bank{outputs, inputs, columns},
                            count, threads);
    });
    m.def("learn", [](Address change, Address base, Address hebbian, Address steered,
                      Address weight, Address first, Address second, Address factor, double decay,
                      double eta, Int outputs, Int inputs, bool columns, int threads) {
        const Step<T> step{at<T>(first), at<T>(second), at<T>(factor), T(decay), T(eta)};
        kernels<T>().learn(at<T>(change), at<T>(base), at<T>(hebbian), at<T>(steered),
                           at<T>(weight), Bank{outputs, inputs, columns}, step, threads);
    });
    m.def("decay_add", [](Address trace, Address gradient, Address total, Int count, double decay,
                          int threads) {
        kernels<T>().decay_add(at<T>(trace), at<T>(gradient), at<T>(total), count, decay, threads);
    });
    m.def("dot", [](Address a, Address b, Address out, Int outputs, Int inputs, bool columns,
                    bool shared, int threads) {
        kernels<T>().dot(at<T>(a), at<T>(b), at<T>(out), Bank{outputs, inputs, columns}, shared,
                         threads);
    });
    m.def("transpose", [](Address in, Address out, Int rows, Int columns, int threads) {
        kernels<T>().transpose(at<T>(in), at<T>(out), rows, columns, threads);
    });
    m.def("convolve", [](Address x, Address weight, Address bias, Address out, Four in, Four shape,
                         Int size, Int stride, Int padding, Int tap_stride, Int in_stride,
                         bool flipped, int threads) {
        kernels<T>().convolve(at<T>(x), at<T>(weight), at<T>(bias), at<T>(out),
                              convolution_of(in, shape, size, stride, padding), tap_stride,
                              in_stride, flipped, threads);
    });
    m.def("correlate", [](Address x, Address g, Address out, Four in, Four shape, Int padding,
                          bool again, int threads) {
        kernels<T>().correlate(at<T>(x), at<T>(g), at<T>(out),
                               convolution_of(in, shape, 3, 1, padding), again, threads);
    });
    m.def("mean", [](Address x, Address out, Four in, Four shape, Int size, Int stride,
                     Int padding, int threads) {
        kernels<T>().mean(at<T>(x), at<T>(out), convolution_of(in, shape, size, stride, padding),
                          threads);
    });
    m.def("nonzero", [](Address x, Int count, int threads) {
        return kernels<T>().nonzero(at<T>(x), count, threads);
    });
}

}  // namespace

}  // namespace mpsl

NB_MODULE(_native, m) {
    mpsl::add<float>(m, "float32");
    mpsl::add<double>(m, "float64");
    m.def("isa", [] { return mpsl::kernels<float>().name; });
}
