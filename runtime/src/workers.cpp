#include "workers.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace mpsl {

namespace {

using Clock = std::chrono::steady_clock;

// About as long as waking a parked thread takes. Mostly longer than what the caller does alone
// between two layers, so that helpers which were woken once stay awake for the rest of the step.
constexpr auto kSpin = std::chrono::microseconds(20);

template <class Ready>
void spin_until(Ready ready) {
    for (const auto end = Clock::now() + kSpin; Clock::now() < end;)
        for (int i = 0; i < 16; ++i) {
            if (ready()) return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            asm volatile("yield");
#endif
        }
}

}  // namespace

class Workers::Team {
public:
    Team(int helpers, Watch& watch) : watch_(watch) {
        try {
            for (int i = 0; i < helpers; ++i) threads_.emplace_back([this] { help(); });
        } catch (const std::system_error&) {
            dismiss();
            throw std::invalid_argument("threads cannot be started; got " +
                                        std::to_string(helpers + 1));
        }
    }

    ~Team() { dismiss(); }

    void share(int count, Call call) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            call_ = call;
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            joined_ = 0;
            vacant_ = std::min(int(threads_.size()), count - 1);
            loop_.fetch_add(1, std::memory_order_relaxed);
        }
        wake_.notify_all();
        work(0);
        std::unique_lock<std::mutex> lock(mutex_);
        vacant_ = 0;  // who wakes only now goes back to sleep; nobody waits for it
        if (!working_) return;
        lock.unlock();
        spin_until([this] { return !working_; });
        lock.lock();
        constexpr auto kPause = std::chrono::milliseconds(Watch::kPauseMs);
        while (!done_.wait_for(lock, kPause, [this] { return !working_; })) {
            lock.unlock();  // whoever is asked may take his time
            watch_.is_over();
            lock.lock();
        }
    }

private:
    void help() {
        unsigned seen = 0;
        std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
        for (;;) {
            spin_until([&] { return loop_.load(std::memory_order_relaxed) != seen; });
            lock.lock();
            wake_.wait(lock, [&] { return ends_ || loop_ != seen; });
            if (ends_) return;
            seen = loop_;
            if (vacant_) {
                --vacant_;
                ++working_;
                const int worker = ++joined_;
                lock.unlock();
                work(worker);
                lock.lock();
                if (--working_ == 0) done_.notify_one();
            }
            lock.unlock();
        }
    }

    void work(int worker) {
        for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
            if (watch_.is_over()) return;
            call_.function(call_.task, i, worker);
        }
    }

    void dismiss() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ends_ = true;
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }

    Watch& watch_;
    std::mutex mutex_;  // of everything below
    std::condition_variable wake_, done_;
    std::atomic<unsigned> loop_{0};  // number of the present one
    std::atomic<int> next_{0};       // index that nobody has taken
    std::atomic<int> working_{0};    // helpers at work
    Call call_{};
    int count_ = 0;
    int joined_ = 0, vacant_ = 0;  // helpers that have joined the loop, that still may
    bool ends_ = false;
    std::vector<std::thread> threads_;
};

Workers::Workers(int threads) : threads_(threads) {
    if (threads < 1)
        throw std::invalid_argument("number of threads; got " + std::to_string(threads) +
                                    "; expected ≥ 1");
    if (threads == 1) return;
    team_ = std::make_unique<Team>(threads - 1, watch);
    process_ = getpid();
}

// In a forked process the threads are gone and whatever they held is held for ever: their team is
// left behind as it is.
Workers::~Workers() {
    if (team_ && process_ != getpid()) static_cast<void>(team_.release());
}

void Workers::share(int count, Call call) {
    if (process_ != getpid()) {
        static_cast<void>(team_.release());
        team_ = std::make_unique<Team>(threads_ - 1, watch);
        process_ = getpid();
    }
    team_->share(count, call);
}

}  // namespace mpsl
