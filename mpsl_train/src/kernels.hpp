// What a fused training window does to whole tensors, on plain memory.
//
// T is float or double. Activities lie channels last, [B, H, W, C] or [B, C]. What has the shape of a
// convolution's weights lies [taps, Ci, Co] ("columns": an output is a column), of a fully
// connected layer's [Co, in] ("rows").
#pragma once

#include <cstdint>

namespace mpsl {

struct Shape {
    std::int64_t batch, rows, columns, channels;
};

struct Convolution {
    Shape in, out;
    std::int64_t size, stride, padding;
};

struct Neuron {
    double decay, threshold, width;
};

// A tensor in the shape of the weights: `outputs` of `inputs` each.
struct Bank {
    std::int64_t outputs, inputs;
    bool columns;
    std::int64_t count() const { return outputs * inputs; }
};

// Where λ_k of Eq. 5, η·c and β of one step are, each [outputs]; banks that are not there are null.
template <class T>
struct Step {
    const T *first, *second, *factor;
    T decay, eta;
};

template <class T>
struct Kernels {
    const char* name;
    // I_t, V_{t−1} (undefined if first) → V_t or U_t (if last) in `membrane`, g in `current`.
    void (*fire)(T* current, T* membrane, std::uint8_t* fired, std::uint8_t* near, std::int64_t count,
                 const Neuron&, bool first, bool last, bool activity, int threads);
    // Spikes averaged over size x size.
    void (*pool)(const std::uint8_t* fired, T* out, const Shape&, std::int64_t size, int threads);
    // ∂L/∂(pooled S_t) and, in `later`, ∂L/∂U_{t+1} (undefined if first) → ∂L/∂U_t in `later`.
    void (*unfire)(const T* gradient, T* later, const std::uint8_t* near, const Shape&,
                   std::int64_t size, const Neuron&, bool first, int threads);
    // Σ over all but the channels.
    void (*sums)(const T* values, T* out, std::int64_t count, std::int64_t channels, int threads);
    // D = C/count + β·P in place.
    void (*finish)(T* change, const T* beta, const T* mean, const Bank&, double count, int threads);
    // W2 = d·W2 + η·D, W3 = d·W3 + c·η·D (null: none), W = base + λ2·W2 + λ3·W3 (null: not wanted).
    void (*learn)(const T* change, const T* base, T* hebbian, T* steered, T* weight, const Bank&,
                  const Step<T>&, int threads);
    // E = d·E + G, Σ = Σ + G.
    void (*decay_add)(T* trace, const T* gradient, T* total, std::int64_t count, double decay,
                      int threads);
    // ⟨a, b⟩ of each output; `shared`: b is one output's, the same for all.
    void (*dot)(const T* a, const T* b, T* out, const Bank&, bool shared, int threads);
    // [rows, columns] → [columns, rows].
    void (*transpose)(const T* in, T* out, std::int64_t rows, std::int64_t columns, int threads);
    // out = bias + conv(x, weight), over the entries of x that are not zero. The weight of (tap, in)
    // stands at tap·tap_stride + in·in_stride, its outputs side by side; null bias: 0. `flipped`:
    // taps in reverse, for the gradient of an input.
    void (*convolve)(const T* x, const T* weight, const T* bias, T* out, const Convolution&,
                     std::int64_t tap_stride, std::int64_t in_stride, bool flipped, int threads);
    // [taps, Ci, Co] = Σ x ⊗ g over the entries of x that are not zero; 3 x 3, stride 1. `again`: the
    // call before, of this or of `convolve`, had the same x.
    void (*correlate)(const T* x, const T* g, T* out, const Convolution&, bool again, int threads);
    // [taps, Ci]: mean over batch and outputs of what each weight sees, P of Eq. 8.
    void (*mean)(const T* x, T* out, const Convolution&, int threads);
    // How many entries are not zero.
    std::int64_t (*nonzero)(const T* x, std::int64_t count, int threads);
};

struct KernelSet {
    Kernels<float> of_float;
    Kernels<double> of_double;
};

extern const KernelSet kernels_baseline;
#if defined(__x86_64__)
extern const KernelSet kernels_v3;
extern const KernelSet kernels_v4;
#endif

// The best that runs here, or the one that $MPSL_ISA names.
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels();
template <>
const Kernels<double>& kernels();

}  // namespace mpsl
