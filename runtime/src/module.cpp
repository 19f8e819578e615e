// Python's view of the engine: arrays in, arrays filled, the interpreter free meanwhile.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "arrays.hpp"
#include "decode/bind.hpp"
#include "live/bind.hpp"
#include "network.hpp"
#include "roofline.hpp"
#include "running.hpp"

namespace nb = nanobind;
using namespace mpsl;

namespace {

using Pair = std::tuple<std::int64_t, std::int64_t>;
using Four = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

FireJob::Kind kind_of(const std::string& name) {
    if (name == "spiking") return FireJob::Spiking;
    if (name == "integrating") return FireJob::Integrating;
    if (name == "threshold") return FireJob::Threshold;
    throw std::invalid_argument("kind of neuron is not known; got " + name);
}

FireJob::Reset reset_of(const std::string& name) {
    if (name == "subtract") return FireJob::Subtract;
    if (name == "value") return FireJob::Value;
    if (name == "subtract-undecayed") return FireJob::Undecayed;
    if (name == "lost") return FireJob::Lost;
    throw std::invalid_argument("reset is not known; got " + name);
}

Weights weights_of(const Array& weight) {
    return float_weights(values_of<float>(weight, "weight"), weight.size());
}

Weights weights_of(const Array& weight, float quantum) {
    return int8_weights(values_of<std::int8_t>(weight, "weight"), quantum, weight.size());
}

void insert_convolution(Network& network, const Array& weight, const Weights& weights,
                        const Array& bias, Pair stride, Four padding, Pair dilation,
                        std::int64_t groups) {
    check_axes(weight, 4, "weight");
    ConvolutionOptions o{};
    o.filters = narrow<std::int64_t>(weight.shape(0));
    o.kernel_rows = narrow<std::int64_t>(weight.shape(2));
    o.kernel_columns = narrow<std::int64_t>(weight.shape(3));
    std::tie(o.stride_rows, o.stride_columns) = stride;
    std::tie(o.top, o.bottom, o.left, o.right) = padding;
    std::tie(o.dilation_rows, o.dilation_columns) = dilation;
    o.groups = groups;
    const float* const shift = values_of<float>(bias, "bias");
    const Running running(network);
    network.add_convolution(o, weights, shift, bias.size());
}

void add_convolution(Network& network, Array weight, Array bias, Pair stride, Four padding,
                     Pair dilation, std::int64_t groups) {
    insert_convolution(network, weight, weights_of(weight), bias, stride, padding, dilation,
                       groups);
}

void add_int8_convolution(Network& network, Array weight, float quantum, Array bias, Pair stride,
                          Four padding, Pair dilation, std::int64_t groups) {
    insert_convolution(network, weight, weights_of(weight, quantum), bias, stride, padding,
                       dilation, groups);
}

void insert_dense(Network& network, const Array& weight, const Weights& weights,
                  const Array& bias) {
    check_axes(weight, 2, "weight");
    const float* const shift = values_of<float>(bias, "bias");
    const Running running(network);
    network.add_dense(narrow<std::int64_t>(weight.shape(0)), weights, shift, bias.size());
}

void add_dense(Network& network, Array weight, Array bias) {
    insert_dense(network, weight, weights_of(weight), bias);
}

void add_int8_dense(Network& network, Array weight, float quantum, Array bias) {
    insert_dense(network, weight, weights_of(weight, quantum), bias);
}

void add_pooling(Network& network, Pair kernel, Pair stride, Pair padding, float scale) {
    const Running running(network);
    network.add_pooling({std::get<0>(kernel), std::get<1>(kernel), std::get<0>(stride),
                         std::get<1>(stride), std::get<0>(padding), std::get<1>(padding), scale});
}

Values parameter(const Array& values, const char* what) {
    return {values_of<float>(values, what), values.size()};
}

Values parameter(const std::optional<Array>& values, const char* what) {
    return values ? parameter(*values, what) : Values{};
}

void add_scaling(Network& network, Array scale) {
    const Values values = parameter(scale, "scale");
    const Running running(network);
    network.add_scaling(values);
}

void add_neurons(Network& network, const std::string& kind, const std::string& reset, Array decay,
                 Array threshold, Array reset_value, std::optional<Array> gain,
                 std::optional<Array> leak, std::optional<Array> synaptic_decay,
                 std::optional<Array> synaptic_gain, std::optional<Array> initial,
                 std::optional<Array> drop, bool many) {
    if (gain.has_value() != leak.has_value() ||
        synaptic_decay.has_value() != synaptic_gain.has_value())
        throw std::invalid_argument("gain and leak, or decay and gain of a synapse, go together");
    const NeuronParameters parameters{kind_of(kind),
                                      reset_of(reset),
                                      many,
                                      parameter(decay, "decay"),
                                      parameter(threshold, "threshold"),
                                      parameter(reset_value, "reset value"),
                                      parameter(drop, "amount of a spike"),
                                      parameter(gain, "gain"),
                                      parameter(leak, "leak"),
                                      parameter(synaptic_decay, "synaptic decay"),
                                      parameter(synaptic_gain, "synaptic gain"),
                                      parameter(initial, "start of v")};
    const Running running(network);
    network.add_neurons(parameters);
}

using Three = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

Extent extent_of(const Three& extent) {
    return Extent(std::get<0>(extent), std::get<1>(extent), std::get<2>(extent));
}

std::size_t add_late(Network& network, Three extent, bool spikes) {
    const Running running(network);
    return network.add_late(extent_of(extent), spikes);
}

void follow(Network& network, std::size_t late, std::size_t source) {
    const Running running(network);
    network.follow(late, source);
}

void see(Network& network, const std::vector<std::size_t>& sources, Three extent) {
    const Running running(network);
    network.see(sources, extent_of(extent));
}

void add_delay(Network& network, Array steps) {
    const std::int32_t* const values = values_of<std::int32_t>(steps, "delay");
    const Running running(network);
    network.add_delay(values, steps.size());
}

void replace_weights(Network& network, std::size_t index, Array weight) {
    const Weights weights = weights_of(weight);
    const Running running(network);
    network.replace_weights(index, weights);
}

void step(Network& network, Array frame, ArrayOut output) {
    const float* const values = values_of<float>(frame, "frame");
    float* const to = values_of<float>(output, "output");
    const Running running(network);
    network.step(values, frame.size(), to, output.size());
}

void step_sparse(Network& network, Array address, Array value, ArrayOut output) {
    check_axes(address, 1, "address");
    check_axes(value, 1, "value");
    if (address.size() != value.size())
        throw std::invalid_argument("addresses and values differ in length");
    const std::int32_t* const at = values_of<std::int32_t>(address, "address");
    const float* const values = values_of<float>(value, "value");
    float* const to = values_of<float>(output, "output");
    const Running running(network);
    network.step_sparse(at, values, address.size(), to, output.size());
}

void run(Network& network, Array frames, std::size_t steps, bool constant, ArrayOut output) {
    const float* const values = values_of<float>(frames, "frames");
    float* const to = values_of<float>(output, "output");
    const Running running(network);
    network.run(values, frames.size(), steps, constant, to, output.size());
}

void spikes(Network& network, std::size_t index, ArrayOut output) {
    std::uint8_t* const to = values_of<std::uint8_t>(output, "output");
    const Running running(network);
    Population& population = network.population(index);
    if (output.size() != population.size())
        throw std::invalid_argument("output has the wrong size");
    population.copy_spikes(to);
}

void membrane(Network& network, std::size_t index, ArrayOut output) {
    float* const to = values_of<float>(output, "output");
    const Running running(network);
    Population& population = network.population(index);
    if (output.size() != population.size())
        throw std::invalid_argument("output has the wrong size");
    if (!population.keeps_membrane())
        throw std::invalid_argument("this population keeps no membrane");
    population.copy_membrane(to);
}

// Null where the output is that of no population, and U has no values.
Population* output_of(Network& network, std::size_t last, std::size_t U) {
    if (!U) return nullptr;
    Population& population = network.population(last);
    if (U != population.size() || !population.keeps_membrane())
        throw std::invalid_argument("state has the wrong size");
    return &population;
}

void check_state(const Network& network, std::size_t V, std::size_t J, std::size_t S,
                 std::size_t late) {
    network.check_finished();
    if (V != network.state_size() || J != network.synapse_size() || S != network.state_size() ||
        late != network.late_size())
        throw std::invalid_argument("state has the wrong size");
}

std::tuple<std::uint64_t, std::uint64_t> state(Network& network, std::size_t last, ArrayOut V,
                                               ArrayOut J, ArrayOut S, ArrayOut U,
                                               ArrayOut late) {
    float* const to_V = values_of<float>(V, "V");
    float* const to_J = values_of<float>(J, "J");
    std::uint8_t* const to_S = values_of<std::uint8_t>(S, "S");
    float* const to_U = values_of<float>(U, "U");
    float* const to_late = values_of<float>(late, "late");
    const Running running(network);
    check_state(network, V.size(), J.size(), S.size(), late.size());
    const Population* const output = output_of(network, last, U.size());
    network.copy_state(to_V, to_J, to_S, to_late);
    if (output) output->copy_membrane(to_U);
    return {network.steps(), network.synops()};
}

void restore(Network& network, std::size_t last, Array V, Array J, Array S, Array U, Array late,
             std::uint64_t steps, std::uint64_t synops) {
    const float* const from_V = values_of<float>(V, "V");
    const float* const from_J = values_of<float>(J, "J");
    const std::uint8_t* const from_S = values_of<std::uint8_t>(S, "S");
    const float* const from_U = values_of<float>(U, "U");
    const float* const from_late = values_of<float>(late, "late");
    const Running running(network);
    check_state(network, V.size(), J.size(), S.size(), late.size());
    Population* const output = output_of(network, last, U.size());
    network.restore(from_V, from_J, from_S, from_late, steps, synops);
    if (output) output->restore_membrane(from_U);
}

// `call(network)` by one caller at a time.
template <class Call>
auto alone(Call call) {
    return [call](Network& network) {
        const Running running(network);
        return call(network);
    };
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The event-driven engine; use it through mpsl_runtime.run.engine.";
    Watch::asks_to_stop = &python_asks_to_stop;
    nb::register_exception_translator(translate_stopped);
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
        result["float32_l3"] = found.float32_l3;
        result["int8_l1"] = found.int8_l1;
        result["int8_l2"] = found.int8_l2;
        result["int8_l3"] = found.int8_l3;
        return result;
    });
    decode::bind(m);
    live::bind(m);
    nb::class_<Network>(m, "Network")
        .def("__init__",
             [](Network* self, std::int64_t channels, std::int64_t rows, std::int64_t columns,
                int threads) { new (self) Network(Extent(channels, rows, columns), threads); },
             nb::arg("channels"), nb::arg("rows"), nb::arg("columns"), nb::arg("threads") = 1)
        .def("add_convolution", &add_convolution)
        .def("add_int8_convolution", &add_int8_convolution)
        .def("add_dense", &add_dense)
        .def("add_int8_dense", &add_int8_dense)
        .def("add_pooling", &add_pooling)
        .def("add_scaling", &add_scaling)
        .def("add_neurons", &add_neurons, nb::arg("kind"), nb::arg("reset"), nb::arg("decay"),
             nb::arg("threshold"), nb::arg("reset_value"), nb::arg("gain").none(),
             nb::arg("leak").none(), nb::arg("synaptic_decay").none(),
             nb::arg("synaptic_gain").none(), nb::arg("initial").none() = nb::none(),
             nb::arg("drop").none() = nb::none(), nb::arg("many") = false)
        .def("mark", alone([](Network& network) { return network.mark(); }))
        .def("add_late", &add_late, nb::arg("extent"), nb::arg("spikes"))
        .def("follow", &follow, nb::arg("late"), nb::arg("source"))
        .def("see", &see, nb::arg("sources"), nb::arg("extent"))
        .def("add_delay", &add_delay, nb::arg("steps"))
        .def("fork", alone([](Network& network) { return new Network(network); }))
        .def("finish", alone([](Network& network) { network.finish(); }))
        .def("reset", alone([](Network& network) { network.reset(); }))
        .def("step", &step, nb::arg("frame"), nb::arg("output"))
        .def("step_sparse", &step_sparse, nb::arg("address"), nb::arg("value"), nb::arg("output"))
        .def("run", &run, nb::arg("frames"), nb::arg("steps"), nb::arg("constant"),
             nb::arg("output"))
        .def("keep_membrane",
             [](Network& network, std::size_t index) {
                 const Running running(network);
                 network.population(index).keep_membrane();
             },
             nb::arg("index"))
        .def("replace_weights", &replace_weights, nb::arg("index"), nb::arg("weight"))
        .def("fired", alone([](Network& n) { return n.fired(); }))
        .def("spikes", &spikes, nb::arg("index"), nb::arg("output"))
        .def("membrane", &membrane, nb::arg("index"), nb::arg("output"))
        .def_prop_ro("populations", alone([](Network& n) { return n.populations(); }))
        .def_prop_ro("output_size", alone([](Network& n) { return n.output_size(); }))
        .def("state", &state, nb::arg("last"), nb::arg("V"), nb::arg("J"), nb::arg("S"),
             nb::arg("U"), nb::arg("late"))
        .def("restore", &restore, nb::arg("last"), nb::arg("V"), nb::arg("J"), nb::arg("S"),
             nb::arg("U"), nb::arg("late"), nb::arg("steps"), nb::arg("synops"))
        .def_prop_ro("steps", alone([](Network& n) { return n.steps(); }))
        .def_prop_ro("synops", alone([](Network& n) { return n.synops(); }))
        .def_prop_ro("bytes", alone([](Network& n) { return n.bytes(); }))
        .def_prop_ro("shared_bytes", alone([](Network& n) { return n.shared_bytes(); }))
        .def_prop_ro("crossovers", alone([](Network& n) { return n.crossovers(); }))
        .def_prop_ro("isa", [](const Network& network) { return std::string(network.isa()); });
}
