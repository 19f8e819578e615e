// Decoded events: four columns that grow and are handed to Python without a copy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

namespace mpsl::decode {

// Memory that is not set to zero: every event is written before it is counted.
template <class T>
class Column {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    void grow(std::size_t capacity) {
        // Python holds what is handed over for long: room for none is still memory.
        void* moved = std::realloc(data_.get(), std::max<std::size_t>(capacity, 1) * sizeof(T));
        if (!moved) throw std::bad_alloc();
        static_cast<void>(data_.release());
        data_.reset(static_cast<T*>(moved));
    }
    T* data() { return data_.get(); }
    T* release() { return data_.release(); }

private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
};

class Columns {
public:
    // Room for so many more events.
    void reserve(std::size_t more) {
        if (more <= capacity_ - size) return;
        set_capacity(std::max(size + more, capacity_ + capacity_ / 2));
    }
    // The memory beyond the last event is given back.
    void shrink() { set_capacity(size); }

    Column<std::int64_t> t;
    Column<std::uint16_t> x, y;
    Column<std::uint8_t> p;
    std::size_t size = 0;

private:
    void set_capacity(std::size_t capacity) {
        t.grow(capacity);
        x.grow(capacity);
        y.grow(capacity);
        p.grow(capacity);
        capacity_ = capacity;
    }

    std::size_t capacity_ = 0;
};

// Writes into room that is made beforehand. Its pointers are copies: a byte that is written through
// a member's pointer might change the member, and it would be read again for every event.
class Writer {
public:
    Writer(Columns& out, std::size_t room) : out_(out) { reserve(room); }
    ~Writer() { out_.size = size_; }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    void reserve(std::size_t room) {
        out_.size = size_;
        out_.reserve(room);
        t_ = out_.t.data();
        x_ = out_.x.data();
        y_ = out_.y.data();
        p_ = out_.p.data();
    }
    void push(std::int64_t t, std::uint32_t x, std::uint32_t y, std::uint32_t p) {
        t_[size_] = t;
        x_[size_] = std::uint16_t(x);
        y_[size_] = std::uint16_t(y);
        p_[size_] = std::uint8_t(p);
        ++size_;
    }
    struct Room {
        std::int64_t* t;
        std::uint16_t *x, *y;
        std::uint8_t* p;
    };
    // Room for so many events, which are counted at once.
    Room take(std::size_t number) {
        const Room room{t_ + size_, x_ + size_, y_ + size_, p_ + size_};
        size_ += number;
        return room;
    }
    // Writes in any case: needs room for one more than is counted.
    void push_if(bool is_event, std::int64_t t, std::uint32_t x, std::uint32_t y,
                 std::uint32_t p) {
        push(t, x, y, p);
        size_ -= !is_event;
    }

private:
    Columns& out_;
    std::size_t size_ = out_.size;
    std::int64_t* t_ = nullptr;
    std::uint16_t *x_ = nullptr, *y_ = nullptr;
    std::uint8_t* p_ = nullptr;
};

}  // namespace mpsl::decode
