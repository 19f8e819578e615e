// One thread at a time; who waits looks at the watch meanwhile.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "watch.hpp"

namespace mpsl {

// No std::timed_mutex: what waits in it is not seen by the thread sanitizer of GCC 12.
class Turns {
public:
    // Throws Stopped while it waits, and std::invalid_argument where the thread has the turn
    // already: a handler of signals that calls what it interrupts would wait for itself.
    void take() {
        const std::thread::id own = std::this_thread::get_id();
        std::unique_lock<std::mutex> lock(mutex_);
        if (worker_ == own)
            throw std::invalid_argument("the engine is at work: it cannot be called now");
        constexpr std::chrono::milliseconds kPause(Watch::kPauseMs);
        while (worker_ != std::thread::id()) {
            if (free_.wait_for(lock, kPause) == std::cv_status::no_timeout) continue;
            lock.unlock();  // who is asked may take his time
            if (Watch::asks_to_stop && Watch::asks_to_stop()) throw Stopped();
            lock.lock();
        }
        worker_ = own;
    }

    void give() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            worker_ = std::thread::id();
        }
        free_.notify_one();
    }

private:
    std::mutex mutex_;  // of everything below
    std::condition_variable free_;
    std::thread::id worker_;
};

}  // namespace mpsl
