// The engine at the other end of a pipe: far_engine.py says what a call looks like. For processors
// that this machine only imitates, where there is no Python.
#include <array>
#include <cstdint>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "network.hpp"

using namespace mpsl;

namespace {

template <class T>
T take() {
    T value;
    if (!std::cin.read(reinterpret_cast<char*>(&value), sizeof value)) std::exit(0);
    return value;
}

int number() { return take<std::int32_t>(); }

// Length, then the values.
template <class T>
std::vector<T> array() {
    std::vector<T> values(take<std::uint64_t>());
    std::cin.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
    return values;
}

// The parts of an answer: its length, then the bytes.
template <class T>
void put(const T* values, std::size_t count) {
    const std::uint64_t bytes = count * sizeof(T);
    std::cout.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    std::cout.write(reinterpret_cast<const char*>(values), std::streamsize(bytes));
}

void put(const std::vector<float>& values) { put(values.data(), values.size()); }

struct Int8OrFloat {
    std::vector<std::int8_t> whole;
    std::vector<float> real;
    float quantum = 0;

    Int8OrFloat() {
        if (number()) {
            quantum = take<float>();
            whole = array<std::int8_t>();
        } else {
            real = array<float>();
        }
    }
    Weights view() const {
        return whole.empty() ? float_weights(real.data(), real.size())
                             : int8_weights(whole.data(), quantum, whole.size());
    }
};

void convolution(Network& network) {
    ConvolutionOptions o{};
    for (std::int64_t* field : {&o.filters, &o.kernel_rows, &o.kernel_columns, &o.stride_rows,
                       &o.stride_columns, &o.top, &o.bottom, &o.left, &o.right, &o.dilation_rows,
                       &o.dilation_columns, &o.groups})
        *field = number();
    const Int8OrFloat weight;
    const std::vector<float> bias = array<float>();
    network.add_convolution(o, weight.view(), bias.data(), bias.size());
}

void dense(Network& network) {
    const int out = number();
    const Int8OrFloat weight;
    const std::vector<float> bias = array<float>();
    network.add_dense(out, weight.view(), bias.data(), bias.size());
}

void pooling(Network& network) {
    PoolingOptions o{};
    for (std::int64_t* field : {&o.kernel_rows, &o.kernel_columns, &o.stride_rows, &o.stride_columns,
                       &o.pad_rows, &o.pad_columns})
        *field = number();
    o.scale = take<float>();
    network.add_pooling(o);
}

void neurons(Network& network) {
    const auto kind = FireJob::Kind(number());
    const auto reset = FireJob::Reset(number());
    const bool many = number();
    std::array<std::vector<float>, 9> arrays;  // an absent one is empty
    for (auto& values : arrays) values = array<float>();
    const auto maybe = [&](int i) {
        return arrays[i].empty() ? Values{} : Values{arrays[i].data(), arrays[i].size()};
    };
    network.add_neurons({kind, reset, many, maybe(0), maybe(1), maybe(2), maybe(8), maybe(3),
                         maybe(4), maybe(5), maybe(6), maybe(7)});
}

Extent extent() {
    const int channels = number(), rows = number(), columns = number();
    return Extent(channels, rows, columns);
}

void see(Network& network) {
    const Extent seen = extent();
    const std::vector<std::int32_t> sources = array<std::int32_t>();
    network.see({sources.begin(), sources.end()}, seen);
}

void put_number(std::size_t number) {
    const std::uint64_t value = number;
    put(&value, 1);
}

void answer(char call, Network& network) {
    std::vector<float> output;
    switch (call) {
        case 'c': return convolution(network);
        case 'd': return dense(network);
        case 'p': return pooling(network);
        case 'n': return neurons(network);
        case 'V': return see(network);
        case 'M': return put_number(network.mark());
        case 'L': {
            const Extent late = extent();
            return put_number(network.add_late(late, number()));
        }
        case 'F': {
            const int late = number();
            return network.follow(std::size_t(late), std::size_t(number()));
        }
        case 'D': {
            const std::vector<std::int32_t> steps = array<std::int32_t>();
            return network.add_delay(steps.data(), steps.size());
        }
        case 'f': return network.finish();
        case '0': return network.reset();
        case 's': {
            const std::vector<float> scale = array<float>();
            return network.add_scaling({scale.data(), scale.size()});
        }
        case 'S': {
            const std::vector<float> frame = array<float>();
            output.resize(network.output_size());
            network.step(frame.data(), frame.size(), output.data(), output.size());
            return put(output);
        }
        case 'E': {
            const std::vector<std::int32_t> address = array<std::int32_t>();
            const std::vector<float> value = array<float>();
            output.resize(network.output_size());
            network.step_sparse(address.data(), value.data(), address.size(), output.data(),
                                output.size());
            return put(output);
        }
        case 'R': {
            const int steps = number(), constant = number();
            const std::vector<float> frames = array<float>();
            output.resize(network.output_size() * std::size_t(steps));
            network.run(frames.data(), frames.size(), std::size_t(steps), constant, output.data(),
                        output.size());
            return put(output);
        }
        case 'k': return network.population(std::size_t(number())).keep_membrane();
        case 'b': {
            Population& population = network.population(std::size_t(number()));
            std::vector<std::uint8_t> spikes(population.size());
            population.copy_spikes(spikes.data());
            return put(spikes.data(), spikes.size());
        }
        case 'm': {
            Population& population = network.population(std::size_t(number()));
            output.resize(population.size());
            population.copy_membrane(output.data());
            return put(output);
        }
        case '?': {
            const std::uint64_t facts[] = {network.populations(), network.output_size(),
                                           network.synops(), network.bytes()};
            put(facts, 4);
            const std::string isa = network.isa();
            return put(isa.data(), isa.size());
        }
        default: throw std::logic_error("no such call");
    }
}

}  // namespace

// A call: its letter, the number of the network, its arguments. The answer: its parts, then a part
// that is empty or says what was wrong, then what marks the end.
int main() {
    std::ios::sync_with_stdio(false);
    std::map<int, std::unique_ptr<Network>> networks;
    for (;;) {
        const char call = take<char>();
        const int name = number();
        std::string wrong;
        try {
            if (call == 'N') {
                const int channels = number(), rows = number(), columns = number();
                const int threads = number();
                networks[name] = std::make_unique<Network>(Extent(channels, rows, columns), threads);
            } else if (call == 'x') {
                networks.erase(name);
            } else {
                answer(call, *networks.at(name));
            }
        } catch (const std::exception& error) {
            wrong = error.what();
        }
        constexpr std::uint64_t end = ~std::uint64_t(0);
        std::cout.write(reinterpret_cast<const char*>(&end), sizeof end);
        put(wrong.data(), wrong.size());
        std::cout.flush();
    }
}
