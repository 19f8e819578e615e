// What the kernels of all kinds need: memory that stays, the thread, the size of a piece of work.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace mpsl {

namespace {

// Numbers: small enough for a core's first cache, large enough to be worth a thread.
constexpr std::int64_t kChunk = 4096;

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

inline int this_thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// Memory that stays for the next call. Calls hold Python's lock, so there is one at a time.
template <class T>
class Scratch {
public:
    T* get(std::int64_t count) {
        if (count > count_) {
            std::free(data_);
            data_ = static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 127) / 64 * 64));
            count_ = data_ ? count : 0;
            if (!data_) throw std::bad_alloc();
        }
        return data_;
    }

private:
    T* data_ = nullptr;
    std::int64_t count_ = 0;
};

}  // namespace

}  // namespace mpsl
