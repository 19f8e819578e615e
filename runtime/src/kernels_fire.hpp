// Currents to spikes; a part of kernels_impl.hpp.

// The current without bias: sums of float32, or exact whole numbers of quanta.
template <bool IsInt>
MPSL_INLINE Float real_current(const void* current, Float quantum) {
    if (!IsInt) return *(const Float*)current;
    return __builtin_convertvector(*(const Int*)current, Float) * quantum;
}

// What is left of U where `level` reached the threshold, and U elsewhere; bit k of `fired` says
// which. `amount`: that is subtracted, or that U becomes.
MPSL_INLINE Float reset_fired(Float u, Float level, Float threshold, Float amount, bool subtract,
                              std::uint64_t& fired) {
    fired = bits_at_least(level, threshold);
#if MPSL_VECTOR_BYTES == 64
    const __mmask16 mask = __mmask16(fired);
    return subtract ? (Float)_mm512_mask_sub_ps((__m512)u, mask, (__m512)u, (__m512)amount)
                    : (Float)_mm512_mask_mov_ps((__m512)u, mask, (__m512)amount);
#else
    const Mask mask = level >= threshold;
    return subtract ? u - (Float)(mask & (Mask)amount) : select(mask, amount, u);
#endif
}

// What does not change is copied out of the job: a store may alias its fields.
template <int Width, bool IsInt, bool IsLate>
void fire_uniform_width(const FireJob& job) {
    constexpr int kVectors = Width / kLanes;
    const bool subtract = job.reset == FireJob::Subtract || job.reset == FireJob::Undecayed;
    const Float decay = splat(job.decay), threshold = splat(job.threshold);
    const Float amount = splat(subtract ? job.drop : job.reset_value);
    const Float quantum = splat(job.quantum);
    const bool clear_current = job.clear_current;
    const std::size_t pixels = job.pixels, spike_stride = job.spike_stride;
    Float bias[kVectors];
    for (int k = 0; k < kVectors; ++k) bias[k] = ((const Float*)job.bias)[k];
    std::uint64_t* spikes = job.spikes;
    Float* current = (Float*)job.current;
    Float* state = (Float*)job.state;
    Float* membrane = (Float*)job.membrane;
    for (std::size_t p = 0; p < pixels; ++p) {
        std::uint64_t word = 0;
        for (int k = 0; k < kVectors; ++k) {
            const Float input = real_current<IsInt>(current + k, quantum) + bias[k];
            const Float before = state[k];
            Float u = decay * before + input;
            std::uint64_t fired;
            if (IsLate) {
                state[k] = u = reset_fired(u, before, threshold, amount, subtract, fired);
                fired = bits_at_least(u, threshold);
            } else {
                state[k] = reset_fired(u, u, threshold, amount, subtract, fired);
            }
            word |= fired << (k * kLanes);
            if (clear_current) current[k] = Float{};
            if (membrane) membrane[k] = u;
        }
        *spikes = word;
        spikes += spike_stride;
        current += kVectors;
        state += kVectors;
        if (membrane) membrane += kVectors;
    }
}

template <bool IsInt, bool IsLate>
void fire_uniform_kind(const FireJob& job) {
    if (job.width == 64) fire_uniform_width<64, IsInt, IsLate>(job);
    else if (job.width == 32) fire_uniform_width<32, IsInt, IsLate>(job);
    else fire_uniform_width<16, IsInt, IsLate>(job);
}

void fire_uniform(const FireJob& job) {
    const bool is_late = job.reset == FireJob::Undecayed || job.reset == FireJob::Lost;
    if (job.quantum != 0 && is_late) fire_uniform_kind<true, true>(job);
    else if (job.quantum != 0) fire_uniform_kind<true, false>(job);
    else if (is_late) fire_uniform_kind<false, true>(job);
    else fire_uniform_kind<false, false>(job);
}

// How often each neuron fires: ⌊u/drop⌋ where u reached the threshold.
MPSL_INLINE Float count_fired(Float u, Float threshold, Float drop) {
    const Float ratio = u / drop, large = splat(8388608.0f);  // from there on all floats are whole
    const Float small = select(ratio < large, ratio, Float{});
    const Float whole = __builtin_convertvector(__builtin_convertvector(small, Int), Float);
    return select(u >= threshold, select(ratio < large, whole, ratio), Float{});
}

// What the spikes that fall at `level` leave of u.
MPSL_INLINE Float after_spikes(const FireJob& job, std::size_t i, Float u, Float level,
                               bool subtract) {
    const Float threshold = ((const Float*)job.thresholds)[i], drop = ((const Float*)job.drops)[i];
    const Mask fired = level >= threshold;
    if (!subtract) return select(fired, ((const Float*)job.reset_values)[i], u);
    if (!job.counts) return u - (Float)(fired & (Mask)drop);
    return u - count_fired(level, threshold, drop) * drop;
}

void fire_each(const FireJob& job) {
    const bool is_late = job.reset == FireJob::Undecayed || job.reset == FireJob::Lost;
    const bool subtract = job.reset == FireJob::Subtract || job.reset == FireJob::Undecayed;
    const int vectors = job.width / kLanes;
    const Float* const bias = (const Float*)job.bias;
    for (std::size_t p = 0; p < job.pixels; ++p) {
        std::uint64_t word = 0;
        for (int k = 0; k < vectors; ++k) {
            const std::size_t i = p * vectors + k;
            const Float* const current = (const Float*)job.current + i;
            Float input = (job.quantum != 0 ? real_current<true>(current, splat(job.quantum))
                                            : *current) + bias[k];
            if (job.clear_current) ((Float*)job.current)[i] = Float{};
            const Float threshold = ((const Float*)job.thresholds)[i];
            if (job.kind == FireJob::Threshold) {
                word |= bits_at_least(input, threshold) << (k * kLanes);
                continue;
            }
            if (job.synapse) {
                Float& synapse = ((Float*)job.synapse)[i];
                synapse = ((const Float*)job.synaptic_decays)[i] * synapse +
                          ((const Float*)job.synaptic_gains)[i] * input;
                input = synapse;
            }
            if (job.gains)
                input = ((const Float*)job.gains)[i] * input + ((const Float*)job.leaks)[i];
            Float& state = ((Float*)job.state)[i];
            Float u = ((const Float*)job.decays)[i] * state + input;
            const bool fires = job.kind == FireJob::Spiking;
            if (fires && is_late) u = after_spikes(job, i, u, state, subtract);
            if (job.membrane) ((Float*)job.membrane)[i] = u;
            state = fires && !is_late ? after_spikes(job, i, u, u, subtract) : u;
            if (!fires) continue;
            word |= bits_at_least(u, threshold) << (k * kLanes);
            if (job.counts)
                ((Float*)job.counts)[i] = count_fired(u, threshold, ((const Float*)job.drops)[i]);
        }
        job.spikes[p * job.spike_stride] = word;
    }
}
