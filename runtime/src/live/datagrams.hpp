// A thread that takes datagrams from a socket, and a bounded queue in which they wait.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace mpsl::live {

// How many events a payload holds, for those that the queue has to drop.
enum class EventCount { Mpsl, Bytes8, Bytes13, Spif };

std::size_t events_of(EventCount rule, const std::uint8_t* payload, std::size_t size);

class DatagramQueue {
public:
    struct Counters {
        std::uint64_t received = 0;           // taken from the socket
        std::uint64_t dropped_datagrams = 0;  // let go, because the queue was full
        std::uint64_t dropped_events = 0;     // in those
        std::uint64_t system_drops = 0;       // datagrams that the system's buffer had no room for
    };
    struct Waiting {
        std::size_t datagrams = 0, bytes = 0;
    };

    // `socket` stays the caller's, who closes it after `stop`. A queue of `bytes` and of
    // `largest_events` (a datagram counts as one more) drops its oldest to make room.
    DatagramQueue(int socket, std::size_t bytes, std::size_t largest_events, EventCount rule);
    ~DatagramQueue();
    DatagramQueue(const DatagramQueue&) = delete;
    DatagramQueue& operator=(const DatagramQueue&) = delete;

    // What waits; sleeps up to `milliseconds` until something does, and then until the oldest has
    // waited for kGatherUs: to handle a batch has a fixed cost.
    static constexpr int kGatherUs = 1000;
    Waiting wait(int milliseconds);

    // Moves the oldest datagrams out, whole ones, as far as there is room for `largest` of them and
    // for `bytes`; returns their number. `offsets` has `largest` + 1 entries.
    std::size_t take(std::uint8_t* data, std::size_t bytes, std::int64_t* offsets,
                     std::uint64_t* senders, std::int64_t* arrivals_ns, std::size_t largest);

    Counters counters();
    std::size_t waiting_events();
    void stop();

private:
    struct Entry {
        std::size_t position, size, events;
        std::uint64_t sender;
        std::int64_t arrival_ns;
    };
    struct Slots;

    void receive();
    void put(const std::uint8_t* payload, std::size_t size, std::uint64_t sender,
             std::int64_t arrival_ns);
    bool find_room(std::size_t size);
    void drop_oldest();

    const int socket_;
    const std::size_t largest_events_;
    const EventCount rule_;
    const long process_;
    int wake_[2] = {-1, -1};  // a pipe: `stop` writes, the thread's poll sees it
    std::mutex mutex_, stop_mutex_;
    std::condition_variable arrived_;
    std::vector<std::uint8_t> ring_;
    std::deque<Entry> entries_;
    std::size_t head_ = 0, waiting_events_ = 0, waiting_bytes_ = 0;
    Counters counters_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

}  // namespace mpsl::live
