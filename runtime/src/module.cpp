// Python's view of the engine: arrays in, arrays filled, the interpreter free meanwhile.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "decode/bind.hpp"
#include "live/bind.hpp"
#include "network.hpp"
#include "roofline.hpp"

namespace nb = nanobind;
using namespace mpsl;

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const std::int8_t, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using BytesOut = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;
using Pair = std::tuple<int, int>;
using Four = std::tuple<int, int, int, int>;

// The network works without the interpreter's lock; its own lock keeps callers apart.
class Running {
public:
    explicit Running(Network& network) : lock_(network.mutex) {}

private:
    nb::gil_scoped_release release_;  // before the lock, or a waiting thread would block the other
    std::lock_guard<std::mutex> lock_;
};

FireJob::Kind kind_of(const std::string& name) {
    if (name == "spiking") return FireJob::Spiking;
    if (name == "integrating") return FireJob::Integrating;
    if (name == "threshold") return FireJob::Threshold;
    throw std::invalid_argument("kind of neuron is not known; got " + name);
}

Weights weights_of(const Floats& values) { return float_weights(values.data(), values.size()); }

template <class Array>
void insert_convolution(Network& network, const Array& weight, Weights weights, Floats bias,
                        Pair stride, Four padding, Pair dilation, int groups) {
    if (weight.ndim() != 4) throw std::invalid_argument("weight is not [out, in, rows, columns]");
    ConvolutionOptions o{};
    o.filters = int(weight.shape(0));
    o.kernel_rows = int(weight.shape(2));
    o.kernel_columns = int(weight.shape(3));
    std::tie(o.stride_rows, o.stride_columns) = stride;
    std::tie(o.top, o.bottom, o.left, o.right) = padding;
    std::tie(o.dilation_rows, o.dilation_columns) = dilation;
    o.groups = groups;
    network.add_convolution(o, weights, bias.data(), bias.size());
}

void add_convolution(Network& network, Floats weight, Floats bias, Pair stride, Four padding,
                     Pair dilation, int groups) {
    insert_convolution(network, weight, weights_of(weight), bias, stride, padding, dilation,
                       groups);
}

void add_int8_convolution(Network& network, Bytes weight, float quantum, Floats bias, Pair stride,
                          Four padding, Pair dilation, int groups) {
    insert_convolution(network, weight, int8_weights(weight.data(), quantum, weight.size()), bias,
                       stride, padding, dilation, groups);
}

template <class Array>
void insert_dense(Network& network, const Array& weight, Weights weights, Floats bias) {
    if (weight.ndim() != 2) throw std::invalid_argument("weight is not [out, in]");
    network.add_dense(int(weight.shape(0)), weights, bias.data(), bias.size());
}

void add_dense(Network& network, Floats weight, Floats bias) {
    insert_dense(network, weight, weights_of(weight), bias);
}

void add_int8_dense(Network& network, Bytes weight, float quantum, Floats bias) {
    insert_dense(network, weight, int8_weights(weight.data(), quantum, weight.size()), bias);
}

void add_pooling(Network& network, Pair kernel, Pair stride, Pair padding, float scale) {
    network.add_pooling({std::get<0>(kernel), std::get<1>(kernel), std::get<0>(stride),
                         std::get<1>(stride), std::get<0>(padding), std::get<1>(padding), scale});
}

void add_neurons(Network& network, const std::string& kind, bool subtract, Floats decay,
                 Floats threshold, Floats reset_value, std::optional<Floats> gain,
                 std::optional<Floats> leak, std::optional<Floats> synaptic_decay,
                 std::optional<Floats> synaptic_gain) {
    const std::size_t size = decay.size();
    const auto data = [size](const Floats& values) {
        if (values.size() != size) throw std::invalid_argument("neuron arrays differ in size");
        return values.data();
    };
    const auto maybe = [&](const std::optional<Floats>& values) {
        return values ? data(*values) : nullptr;
    };
    if (gain.has_value() != leak.has_value() ||
        synaptic_decay.has_value() != synaptic_gain.has_value())
        throw std::invalid_argument("gain and leak, or decay and gain of a synapse, go together");
    const NeuronParameters parameters{kind_of(kind),         subtract,
                                      data(decay),           data(threshold),
                                      data(reset_value),     maybe(gain),
                                      maybe(leak),           maybe(synaptic_decay),
                                      maybe(synaptic_gain)};
    network.add_neurons(parameters, size);
}

void step(Network& network, Floats frame, FloatsOut output) {
    const Running running(network);
    network.step(frame.data(), frame.size(), output.data(), output.size());
}

void step_sparse(Network& network, Integers address, Floats value, FloatsOut output) {
    if (address.size() != value.size())
        throw std::invalid_argument("addresses and values differ in length");
    const Running running(network);
    network.step_sparse(address.data(), value.data(), address.size(), output.data(),
                        output.size());
}

void run(Network& network, Floats frames, std::size_t steps, bool constant, FloatsOut output) {
    const Running running(network);
    network.run(frames.data(), frames.size(), steps, constant, output.data(), output.size());
}

void reset(Network& network) {
    const Running running(network);
    network.reset();
}

void keep_membrane(Network& network, std::size_t index) {
    const Running running(network);
    network.population(index).keep_membrane();
}

template <class Array, class Copy>
void copy_out(Network& network, std::size_t index, Array& output, Copy copy) {
    const Running running(network);
    Population& population = network.population(index);
    if (output.size() != population.size())
        throw std::invalid_argument("output has the wrong size");
    copy(population, output.data());
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The event-driven engine; use it through mpsl_runtime.run.engine.";
    m.def("isa", [] { return std::string(select_kernels().name); });
    m.def("roofline", [] {
        Roofline found;
        {
            const nb::gil_scoped_release release;
            found = measure_roofline(select_kernels());
        }
        nb::dict result;
        result["float32_l1"] = found.float32_l1;
        result["float32_l2"] = found.float32_l2;
        result["int8_l1"] = found.int8_l1;
        result["int8_l2"] = found.int8_l2;
        return result;
    });
    decode::bind(m);
    live::bind(m);
    nb::class_<Network>(m, "Network")
        .def("__init__",
             [](Network* self, int channels, int rows, int columns, int threads) {
                 new (self) Network(Extent{channels, rows, columns}, threads);
             },
             nb::arg("channels"), nb::arg("rows"), nb::arg("columns"), nb::arg("threads") = 1)
        .def("add_convolution", &add_convolution)
        .def("add_int8_convolution", &add_int8_convolution)
        .def("add_dense", &add_dense)
        .def("add_int8_dense", &add_int8_dense)
        .def("add_pooling", &add_pooling)
        .def("add_scaling",
             [](Network& network, Floats scale) {
                 network.add_scaling(scale.data(), scale.size());
             })
        .def("add_neurons", &add_neurons, nb::arg("kind"), nb::arg("subtract"), nb::arg("decay"),
             nb::arg("threshold"), nb::arg("reset_value"), nb::arg("gain").none(),
             nb::arg("leak").none(), nb::arg("synaptic_decay").none(),
             nb::arg("synaptic_gain").none())
        .def("finish", &Network::finish)
        .def("reset", &reset)
        .def("step", &step, nb::arg("frame"), nb::arg("output").noconvert())
        .def("step_sparse", &step_sparse, nb::arg("address"), nb::arg("value"),
             nb::arg("output").noconvert())
        .def("run", &run, nb::arg("frames"), nb::arg("steps"), nb::arg("constant"),
             nb::arg("output").noconvert())
        .def("keep_membrane", &keep_membrane, nb::arg("index"))
        .def("spikes",
             [](Network& network, std::size_t index, BytesOut output) {
                 copy_out(network, index, output,
                          [](Population& p, std::uint8_t* to) { p.copy_spikes(to); });
             },
             nb::arg("index"), nb::arg("output").noconvert())
        .def("membrane",
             [](Network& network, std::size_t index, FloatsOut output) {
                 copy_out(network, index, output, [&](Population& p, float* to) {
                     if (!p.keeps_membrane())
                         throw std::invalid_argument("this population keeps no membrane");
                     p.copy_membrane(to);
                 });
             },
             nb::arg("index"), nb::arg("output").noconvert())
        .def_prop_ro("populations", &Network::populations)
        .def_prop_ro("output_size", &Network::output_size)
        .def_prop_ro("synops", &Network::synops)
        .def_prop_ro("bytes", &Network::bytes)
        .def_prop_ro("crossovers", &Network::crossovers)
        .def_prop_ro("isa", [](const Network& network) { return std::string(network.isa()); });
}
