// pgwake in C++: cplusplus CONNINFO CHANNEL [COUNT] prints notifications, COUNT of them or for ever.
//
//     c++ cplusplus.cpp $(pkg-config --cflags --libs pgwake) -o cplusplus
#include <pgwake.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

/// Ends with its scope; a status below zero becomes an exception.
class Events {
    std::unique_ptr<pgwake, decltype(&pgwake_close)> handle{pgwake_new(nullptr), &pgwake_close};

    int checked(int status) {
        if (status < 0) throw std::runtime_error(pgwake_error(handle.get()));
        return status;
    }

public:
    int connect(const std::string &conninfo) { return checked(pgwake_connect(handle.get(), conninfo.c_str(), nullptr)); }
    void listen(int db, const std::string &channel) { checked(pgwake_listen(handle.get(), db, channel.c_str())); }

    const pgwake_event *next(int timeout_ms = -1) {
        const pgwake_event *event;
        return checked(pgwake_next(handle.get(), timeout_ms, &event)) > 0 ? event : nullptr;
    }
};

int main(int argc, char **argv) try {
    if (argc < 3) throw std::invalid_argument("usage: cplusplus CONNINFO CHANNEL [COUNT]");
    long count = argc > 3 ? std::atol(argv[3]) : -1;
    Events events;
    events.listen(events.connect(argv[1]), argv[2]);
    while (count != 0) {
        const pgwake_event *event = events.next();
        if (!event) continue;
        if (event->type == PGWAKE_EVENT_FAILED) throw std::runtime_error(event->message);
        if (event->type == PGWAKE_EVENT_LISTENING) std::cout << "listening in " << event->db << std::endl;
        if (event->type == PGWAKE_EVENT_GAP) std::cout << "look at everything afresh" << std::endl;
        if (event->type != PGWAKE_EVENT_NOTIFICATION) continue;
        std::cout << event->channel << ": " << std::string(event->payload, event->payload_len) << std::endl;
        if (count > 0) count--;
    }
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}
