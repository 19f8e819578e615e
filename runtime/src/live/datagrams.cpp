// See datagrams.hpp. The thread never touches Python, so no interpreter's lock can make it late.
#include "datagrams.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>

namespace mpsl::live {

namespace {

constexpr std::size_t kSlots = 64;          // datagrams of one system call
constexpr std::size_t kSlotBytes = 65536;   // no datagram is longer
constexpr auto kGather = std::chrono::microseconds(100);

std::int64_t now_ns() {
    // steady_clock is CLOCK_MONOTONIC, as Python's time.monotonic_ns.
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

std::uint64_t hash_of(const sockaddr_storage& address, std::size_t size) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&address);
    std::uint64_t hash = 14695981039346656037u;  // FNV-1a
    for (std::size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

std::uint32_t word_at(const std::uint8_t* bytes) {
    return std::uint32_t(bytes[0]) | std::uint32_t(bytes[1]) << 8 | std::uint32_t(bytes[2]) << 16 |
           std::uint32_t(bytes[3]) << 24;
}

}  // namespace

std::size_t events_of(EventCount rule, const std::uint8_t* payload, std::size_t size) {
    switch (rule) {
        case EventCount::Mpsl: {
            if (size < 44 || std::memcmp(payload, "MPSL", 4) != 0) return 0;
            const std::size_t count = std::size_t(payload[6]) | std::size_t(payload[7]) << 8;
            return size == 44 + 8 * count ? count : 0;
        }
        case EventCount::Bytes8: return size / 8;
        case EventCount::Bytes13: return size / 13;
        case EventCount::Spif: break;
    }
    // Bit 31 of a word says that no word with its time follows.
    return size >= 4 && word_at(payload) >> 31 ? size / 4 : size / 8;
}

// What recvmmsg fills, 64 datagrams a call; elsewhere than on Linux, one.
struct DatagramQueue::Slots {
    std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(kSlots * kSlotBytes);
    sockaddr_storage senders[kSlots];
    std::size_t sizes[kSlots];
    std::size_t sender_sizes[kSlots];
    std::uint32_t system_drops = 0;
#ifdef __linux__
    mmsghdr headers[kSlots];
    iovec parts[kSlots];
    alignas(cmsghdr) char control[kSlots][64];
#endif

    // The number of datagrams, 0 where none waits.
    std::size_t fill(int socket);

    std::uint8_t* slot(std::size_t index) { return bytes.data() + index * kSlotBytes; }
};

std::size_t DatagramQueue::Slots::fill(int socket) {
#ifdef __linux__
    for (std::size_t i = 0; i < kSlots; ++i) {
        parts[i] = {slot(i), kSlotBytes};
        headers[i] = {};
        headers[i].msg_hdr.msg_name = &senders[i];
        headers[i].msg_hdr.msg_namelen = sizeof senders[i];
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
        headers[i].msg_hdr.msg_control = control[i];
        headers[i].msg_hdr.msg_controllen = sizeof control[i];
    }
    const int got = recvmmsg(socket, headers, kSlots, MSG_DONTWAIT, nullptr);
    if (got <= 0) return 0;
    for (int i = 0; i < got; ++i) {
        sizes[i] = headers[i].msg_len;
        sender_sizes[i] = headers[i].msg_hdr.msg_namelen;
        for (cmsghdr* part = CMSG_FIRSTHDR(&headers[i].msg_hdr); part != nullptr;
             part = CMSG_NXTHDR(&headers[i].msg_hdr, part))
            if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_RXQ_OVFL)
                std::memcpy(&system_drops, CMSG_DATA(part), sizeof system_drops);
    }
    return std::size_t(got);
#else
    socklen_t length = sizeof senders[0];
    const auto got = recvfrom(socket, slot(0), kSlotBytes, MSG_DONTWAIT,
                              reinterpret_cast<sockaddr*>(&senders[0]), &length);
    if (got < 0) return 0;
    sizes[0] = std::size_t(got);
    sender_sizes[0] = length;
    return 1;
#endif
}

DatagramQueue::DatagramQueue(int socket, std::size_t bytes, std::size_t largest_events,
                             EventCount rule)
    : socket_(socket), largest_events_(largest_events), rule_(rule), process_(getpid()),
      // Whatever comes finds room once all else is dropped.
      ring_(bytes < 2 * kSlotBytes ? 2 * kSlotBytes : bytes) {
    if (pipe(wake_) != 0) throw std::invalid_argument("the system gives no pipe");
    for (const int end : wake_) fcntl(end, F_SETFD, FD_CLOEXEC);
#ifdef __linux__
    const int yes = 1;
    setsockopt(socket_, SOL_SOCKET, SO_RXQ_OVFL, &yes, sizeof yes);
#endif
    try {
        thread_ = std::thread([this] { receive(); });
    } catch (const std::exception&) {
        close(wake_[0]);
        close(wake_[1]);
        throw std::invalid_argument("the system gives no thread");
    }
}

DatagramQueue::~DatagramQueue() { stop(); }

void DatagramQueue::stop() {
    const std::lock_guard<std::mutex> once(stop_mutex_);
    if (stopping_.exchange(true)) return;
    const char byte = 0;
    while (write(wake_[1], &byte, 1) < 0 && errno == EINTR) {}
    if (getpid() == process_)
        thread_.join();
    else
        thread_.detach();  // a fork has the object, not the thread
    for (const int end : wake_) close(end);
    arrived_.notify_all();
}

void DatagramQueue::receive() {
    Slots slots;
    pollfd watched[2] = {{socket_, POLLIN, 0}, {wake_[0], POLLIN, 0}};
    while (!stopping_) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR) return;
        if (stopping_ || watched[0].revents & POLLNVAL) return;
        std::size_t together = 0;
        while (const std::size_t number = slots.fill(socket_)) {
            const std::int64_t arrival_ns = now_ns();
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                counters_.received += number;
                counters_.system_drops = slots.system_drops;
                for (std::size_t i = 0; i < number; ++i)
                    put(slots.slot(i), slots.sizes[i],
                        hash_of(slots.senders[i], slots.sender_sizes[i]), arrival_ns);
            }
            arrived_.notify_one();
            together += number;
            if (stopping_) return;
        }
        if (watched[0].revents & (POLLERR | POLLHUP) && !together) {
            int error = 0;  // an ICMP error of another socket is none of ours; reading it clears it
            socklen_t size = sizeof error;
            getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size);
        }
        // In a dense stream, waking for each datagram would cost more than the datagram.
        if (together > 1) std::this_thread::sleep_for(kGather);
    }
}

void DatagramQueue::drop_oldest() {
    const Entry& oldest = entries_.front();
    ++counters_.dropped_datagrams;
    counters_.dropped_events += oldest.events;
    waiting_events_ -= oldest.events + 1;
    waiting_bytes_ -= oldest.size;
    entries_.pop_front();
}

// Sets head_ to where `size` bytes fit; false where the ring is too full.
bool DatagramQueue::find_room(std::size_t size) {
    if (entries_.empty()) {
        head_ = 0;
        return true;
    }
    const std::size_t tail = entries_.front().position;
    if (head_ <= tail) return tail - head_ >= size && head_ != tail;
    if (ring_.size() - head_ >= size) return true;
    if (tail <= size) return false;
    head_ = 0;
    return true;
}

void DatagramQueue::put(const std::uint8_t* payload, std::size_t size, std::uint64_t sender,
                        std::int64_t arrival_ns) {
    const std::size_t events = events_of(rule_, payload, size);
    while (!entries_.empty() && waiting_events_ + events + 1 > largest_events_) drop_oldest();
    const std::size_t room = size ? size : 1;  // or two entries would begin at one place
    while (!find_room(room)) drop_oldest();
    std::memcpy(ring_.data() + head_, payload, size);
    entries_.push_back({head_, size, events, sender, arrival_ns});
    head_ += room;
    waiting_events_ += events + 1;
    waiting_bytes_ += size;
}

DatagramQueue::Waiting DatagramQueue::wait(int milliseconds) {
    std::unique_lock<std::mutex> lock(mutex_);
    arrived_.wait_for(lock, std::chrono::milliseconds(milliseconds),
                      [this] { return !entries_.empty() || stopping_; });
    if (entries_.empty()) return {};
    const std::int64_t left_ns =
        entries_.front().arrival_ns + kGatherUs * std::int64_t(1000) - now_ns();
    if (left_ns > 0 && !stopping_) {
        lock.unlock();
        std::this_thread::sleep_for(std::chrono::nanoseconds(left_ns));
        lock.lock();
    }
    return {entries_.size(), waiting_bytes_};
}

std::size_t DatagramQueue::take(std::uint8_t* data, std::size_t bytes, std::int64_t* offsets,
                                std::uint64_t* senders, std::int64_t* arrivals_ns,
                                std::size_t largest) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::size_t number = 0, filled = 0;
    offsets[0] = 0;
    while (number < largest && !entries_.empty()) {
        const Entry& entry = entries_.front();
        if (filled + entry.size > bytes) break;
        std::memcpy(data + filled, ring_.data() + entry.position, entry.size);
        senders[number] = entry.sender;
        arrivals_ns[number] = entry.arrival_ns;
        filled += entry.size;
        offsets[++number] = std::int64_t(filled);
        waiting_events_ -= entry.events + 1;
        waiting_bytes_ -= entry.size;
        entries_.pop_front();
    }
    return number;
}

std::size_t DatagramQueue::waiting_events() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return waiting_events_ - entries_.size();
}

DatagramQueue::Counters DatagramQueue::counters() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return counters_;
}

}  // namespace mpsl::live
