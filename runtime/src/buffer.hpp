// Memory for vectors: aligned to a cache line, never resized. Large ones ask for huge pages: rows
// that lie anywhere in megabytes of weights miss few address translations then.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "sizes.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mpsl {

// Set to zero.
template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer& like) : Buffer(like.size_) {
        if (size_) std::memcpy(static_cast<void*>(data()), like.data(), size_ * sizeof(T));
    }
    Buffer(Buffer&&) = default;
    Buffer& operator=(Buffer&&) = default;
    explicit Buffer(std::size_t size) : size_(size) {
        if (!size) return;
        const std::size_t used = product(size, sizeof(T));
        const std::size_t alignment = used >= kHugePage ? kHugePage : kAlignment;
        bytes_ = rounded_up(used, alignment);
        data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes_)));
        if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        if (used >= kHugePage) madvise(data_.get(), bytes_, MADV_HUGEPAGE);  // may be refused
#endif
        std::memset(static_cast<void*>(data_.get()), 0, used);
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](std::size_t i) { return data_.get()[i]; }
    const T& operator[](std::size_t i) const { return data_.get()[i]; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return bytes_; }  // taken, the rest of a page included
    bool empty() const { return size_ == 0; }
    void clear() {
        if (size_) std::memset(static_cast<void*>(data_.get()), 0, size_ * sizeof(T));
    }

private:
    static constexpr std::size_t kAlignment = 64, kHugePage = std::size_t(2) << 20;
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    std::size_t size_ = 0, bytes_ = 0;
};

// Room for up to `most` values, taken as far as it is asked for; what was written is forgotten
// when more is asked for than ever before, and by a copy.
template <class T>
class Scratch {
public:
    explicit Scratch(std::size_t most) : most_(most) { product(most, sizeof(T)); }
    Scratch(const Scratch& like) : most_(like.most_) {}

    T* room(std::size_t size) {
        if (size > most_) refuse_size("scratch");
        if (size > size_) {
            data_.reset();
            size_ = 0;
            const std::size_t wanted = std::min(most_, size + size / 2);
            data_.reset(new T[wanted]);
            size_ = wanted;
        }
        return data_.get();
    }
    const T* data() const { return data_.get(); }
    std::size_t bytes() const { return size_ * sizeof(T); }

private:
    std::size_t most_, size_ = 0;
    std::unique_ptr<T[]> data_;
};

}  // namespace mpsl
