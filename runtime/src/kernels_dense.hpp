// The inner loops of fully connected layers, whose rows mostly come from memory; a part of
// kernels_impl.hpp.

// Many rows at once are as many streams from memory for one pass over the sums.
constexpr std::size_t kRowsAtOnce = 8;

// The rows that come next are asked for into the second-level cache, one after the other: in the order
// of addresses memory gives a third more than line by line of eight rows side by side.
struct NextRows {
    const char* row[kRowsAtOnce];
    std::size_t lines;  // of a row
    std::size_t at = 0, line = 0;

    MPSL_INLINE void fetch(std::size_t count) {
#pragma GCC unroll 1
        for (std::size_t i = 0; i < count; ++i) {
            __builtin_prefetch(row[at] + line * 64, 0, 2);
            if (++line < lines) continue;
            line = 0;
            at = (at + 1) % kRowsAtOnce;
        }
    }
};

// Weights of so many bytes are seldom in a cache when their turn comes.
constexpr std::size_t kFetchedBytes = std::size_t(4) << 20;

// Weights of so many bytes never are. Where nearly all rows of them are read, one after the other is
// half as fast again.
constexpr std::size_t kStreamedBytes = std::size_t(16) << 20, kStreamedColumns = 1024;

bool is_stream(const DenseJob& job) {
    const std::size_t rows = job.rows[job.row_count - 1].row - job.rows[0].row + 1;
    return job.columns <= kStreamedColumns && job.row_count > rows - rows / 16 &&
           rows * job.columns * sizeof(float) > kStreamedBytes;
}

// Eight rows, one after the other: `sums`, zero before and after, is what `dense_at_once` has in
// registers, so that the result is rounded alike.
void dense_row_by_row(const DenseJob& job, const ActiveRow* active, float* sums) {
    for (std::size_t k = 0; k < kRowsAtOnce; ++k) {
        const float* const row = job.weights + active[k].row * job.padded_out;
        const Float value = splat(active[k].value);
        for (std::size_t j = 0; j < job.columns; j += kLanes)
            *(Float*)(sums + j) += *(const Float*)(row + j) * value;
    }
    for (std::size_t j = 0; j < job.columns; j += kLanes) {
        *(Float*)(job.current + j) += *(const Float*)(sums + j);
        *(Float*)(sums + j) = Float{};
    }
}

void dense_at_once(const DenseJob& job, const ActiveRow* active, const ActiveRow* next) {
    const std::size_t out = job.padded_out;
    const float* row[kRowsAtOnce];
    Float value[kRowsAtOnce];
    NextRows ahead;
    ahead.lines = job.columns * sizeof(float) / 64;
    for (std::size_t k = 0; k < kRowsAtOnce; ++k) {
        row[k] = job.weights + active[k].row * out;
        value[k] = splat(active[k].value);
        if (next) ahead.row[k] = (const char*)(job.weights + next[k].row * out);
    }
    for (std::size_t j = 0; j < job.columns; j += kLanes) {
        if (next) ahead.fetch(kRowsAtOnce * kVectorBytes / 64);
        Float sum = Float{};
        for (std::size_t k = 0; k < kRowsAtOnce; ++k) sum += *(const Float*)(row[k] + j) * value[k];
        *(Float*)(job.current + j) += sum;
    }
}

void dense(const DenseJob& job) {
    if (!job.row_count) return;
    const std::size_t out = job.padded_out;
    const bool is_streamed = is_stream(job);
    const bool is_fetched = job.rows[job.row_count - 1].row * out * sizeof(float) > kFetchedBytes;
    alignas(64) float sums[kStreamedColumns] = {};
    std::size_t i = 0;
    for (; i + kRowsAtOnce <= job.row_count; i += kRowsAtOnce) {
        const ActiveRow* const active = job.rows + i;
        const bool has_next = i + 2 * kRowsAtOnce <= job.row_count;
        if (is_streamed) dense_row_by_row(job, active, sums);
        else dense_at_once(job, active, is_fetched && has_next ? active + kRowsAtOnce : nullptr);
    }
    for (; i < job.row_count; ++i) {
        const float* const row = job.weights + job.rows[i].row * out;
        const Float value = splat(job.rows[i].value);
        for (std::size_t j = 0; j < job.columns; j += kLanes)
            *(Float*)(job.current + j) += *(const Float*)(row + j) * value;
    }
}

// As `dense`; eight rows of at most 4 · 127 fit an int16 sum.
void dense_int8(const Int8DenseJob& job) {
    const std::size_t out = job.padded_out;
    for (std::size_t i = 0; i < job.row_count; i += kRowsAtOnce) {
        const std::int8_t* row[kRowsAtOnce];
        NextRows next;
        next.lines = (job.columns + 63) / 64;
        Short value[kRowsAtOnce];
        for (std::size_t k = 0; k < kRowsAtOnce; ++k) {
            const std::size_t here = i + k, ahead = here + kRowsAtOnce;
            const bool is_there = here < job.row_count;
            const ActiveRow active = job.rows[is_there ? here : i];
            row[k] = job.weights + active.row * out;
            next.row[k] = (const char*)(
                ahead < job.row_count ? job.weights + job.rows[ahead].row * out : row[k]);
            const std::int16_t count = is_there ? std::int16_t(active.value) : std::int16_t(0);
            value[k] = Short{} + count;
        }
        for (std::size_t line = 0; line < job.columns; line += 64) {
            next.fetch(kRowsAtOnce);
            const std::size_t end = line + 64 < job.columns ? line + 64 : job.columns;
            for (std::size_t j = line; j < end; j += kShortLanes) {
                Short sum = Short{};
                for (std::size_t k = 0; k < kRowsAtOnce; ++k)
                    sum += load_int8(row[k] + j) * value[k];
                flush<1>(&sum, 1, (Int*)(job.current + j));
            }
        }
    }
}
