// Memory for vectors: aligned to a cache line, set to zero, never resized. Large ones ask for huge
// pages: rows that lie anywhere in megabytes of weights miss few address translations then.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mpsl {

template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t size) : size_(size) {
        const bool is_large = size * sizeof(T) >= kHugePage;
        const std::size_t alignment = is_large ? kHugePage : kAlignment;
        const std::size_t bytes = (size * sizeof(T) + alignment - 1) / alignment * alignment;
        data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes ? bytes : alignment)));
        if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        if (is_large) madvise(data_.get(), bytes, MADV_HUGEPAGE);  // refusing it harms nothing
#endif
        std::memset(static_cast<void*>(data_.get()), 0, size * sizeof(T));
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](std::size_t i) { return data_.get()[i]; }
    const T& operator[](std::size_t i) const { return data_.get()[i]; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }
    bool empty() const { return size_ == 0; }
    void clear() {
        if (size_) std::memset(static_cast<void*>(data_.get()), 0, bytes());
    }

private:
    static constexpr std::size_t kAlignment = 64, kHugePage = std::size_t(2) << 20;
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    std::size_t size_ = 0;
};

}  // namespace mpsl
