// Work that takes long is left when somebody asks for it: Ctrl-C is noticed within a second.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>

#if defined(__linux__)
#include <time.h>
#else
#include <chrono>
#endif

namespace mpsl {

// Thrown where work was left.
class Stopped : public std::exception {
public:
    const char* what() const noexcept override { return "stopped"; }
};

class Watch {
public:
    // Says whether to stop; null where nobody can ask for it. Called every 50 ms, by the thread
    // that began the work.
    static inline bool (*asks_to_stop)() = nullptr;

    // Called by the thread that does the work, or shares it with others, before it.
    void begin() {
        owner_ = std::this_thread::get_id();
        stopped_.store(false, std::memory_order_relaxed);
        next_ms_ = now_ms() + kPauseMs;
        spent_ = 0;
    }

    // Whether the work is to be left. Any thread at work may call it, before each piece of some
    // microseconds or more; costs some nanoseconds.
    bool is_over() {
        if (stopped_.load(std::memory_order_relaxed)) return true;
        if (std::this_thread::get_id() != owner_) return false;
        const std::int64_t now = now_ms();
        if (now < next_ms_) return false;
        next_ms_ = now + kPauseMs;
        if (!asks_to_stop || !asks_to_stop()) return false;
        stopped_.store(true, std::memory_order_relaxed);
        return true;
    }

    // What the last look found.
    bool was_over() const { return stopped_.load(std::memory_order_relaxed); }

    // Throws Stopped where the work is to be left.
    void check() {
        if (is_over()) throw Stopped();
    }

    // The same for pieces that are much shorter, of `work` additions or so; for the owner only.
    void spend(std::uint64_t work) {
        spent_ += work;
        if (spent_ < kManyAdditions) return;
        spent_ = 0;
        check();
    }

    static constexpr std::int64_t kPauseMs = 50;

private:
    static constexpr std::uint64_t kManyAdditions = 1 << 16;

    // Exact to some milliseconds, for a quarter of the price.
    static std::int64_t now_ms() {
#if defined(__linux__)
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        return std::int64_t(now.tv_sec) * 1000 + now.tv_nsec / 1000000;
#else
        using namespace std::chrono;
        return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
#endif
    }

    std::atomic<bool> stopped_{false};
    std::thread::id owner_;  // who alone uses what follows
    std::int64_t next_ms_ = 0;
    std::uint64_t spent_ = 0;
};

}  // namespace mpsl
