// Threads that share the tasks of one loop and are parked between loops.
#pragma once

#include <memory>

#include "watch.hpp"

namespace mpsl {

class Workers {
public:
    // `threads`: with the caller's own. Throws std::invalid_argument where the system refuses.
    explicit Workers(int threads);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    // Calls task(index, worker) for every index < count, some of them at the same time; each
    // `worker` < min(threads, count) is one thread's. Ends when all have ended. Throws Stopped
    // where the watch says so: then some tasks were left out, and others may have left early.
    template <class Task>
    void run(int count, const Task& task) {
        if (threads_ == 1 || count < 2) {
            for (int index = 0; index < count && !watch.is_over(); ++index) task(index, 0);
        } else {
            share(count, {&task, [](const void* task, int index, int worker) noexcept {
                              (*static_cast<const Task*>(task))(index, worker);
                          }});
        }
        if (watch.was_over()) throw Stopped();
    }

    int threads() const { return threads_; }

    Watch watch;

private:
    struct Call {
        const void* task;
        // A thread that throws ends the process: tasks allocate nothing and check nothing.
        void (*function)(const void* task, int index, int worker) noexcept;
    };
    class Team;

    void share(int count, Call call);

    const int threads_;
    std::unique_ptr<Team> team_;  // null for one thread
    long process_ = 0;            // that has the team; a fork has none of its threads
};

}  // namespace mpsl
