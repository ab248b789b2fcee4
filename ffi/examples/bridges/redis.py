#!/usr/bin/env python3
"""Events into a stream of Redis, each with its position as its id, so that the server itself refuses repeats.

    pgwake -d dbname=app stream --table orders --slot redis --to ffi/examples/bridges/redis.py HOST PORT KEY

needs nothing but Python. Only changes from the log are stored, for only their positions grow. The key should
name the server and its timeline: after a recovery to a point in time positions come again (`SELECT
system_identifier FROM pg_control_system()`, `timeline_id FROM pg_control_checkpoint()`).
"""

import json
import socket
import sys

host, port, key = sys.argv[1], int(sys.argv[2]), sys.argv[3]

# Its memory is full, it is loading, a replica, busy, cannot write to its disk.
FOR_NOW = ("OOM", "LOADING", "READONLY", "BUSY", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS")

connection = socket.create_connection((host, port), timeout=10)
server = connection.makefile("rb")


def command(*words):
    """A command as the protocol of Redis has it: an array of strings."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def answer():
    """A string, a list of answers, or an error."""
    line = server.readline()
    kind, text = line[:1], line[1:-2]
    if not line:
        sys.exit("Redis has hung up")
    if kind == b"$":
        return server.read(int(text) + 2)[:-2]
    if kind == b"*":
        return [answer() for _ in range(int(text))]
    return RuntimeError(text.decode()) if kind == b"-" else text


def identity(position):
    """`16/B374D848/7` is 97500059720-7: two numbers of 64 bits, which is what an id is."""
    high, low, ordinal = position.split("/")
    return f"{(int(high, 16) << 32) + int(low, 16)}-{ordinal}"


def lines():
    """Whole lines from stdin, as many as are there at once."""
    rest = b""
    while data := sys.stdin.buffer.raw.read(1 << 16):
        *whole, rest = (rest + data).split(b"\n")
        if whole:
            yield whole


def store(changes):
    """All of them or none; why none, if Redis takes nothing now."""
    adds = [command("XADD", key, identity(event["position"]), "event", line) for event, line in changes]
    connection.sendall(command("MULTI") + b"".join(adds) + command("EXEC"))
    queued, stored = [answer() for _ in range(len(adds) + 1)], answer()
    if isinstance(stored, RuntimeError):
        refusal = next((refusal for refusal in queued if isinstance(refusal, RuntimeError)), stored)
        return refusal if str(refusal).startswith(FOR_NOW) else sys.exit(f"Redis stores nothing: {refusal}")
    for (event, _), result in zip(changes, stored):
        # It is there already: the answer to an earlier one was lost.
        is_there = "equal or smaller than the target stream top item" in str(result)
        if isinstance(result, RuntimeError) and not is_there:
            sys.exit(f"Redis did not store {event['position']}: {result}")
    return None


connection.sendall(command("PING"))
if isinstance(pong := answer(), RuntimeError):
    sys.exit(f"Redis does not let us in: {pong}")
print("ready", flush=True)

again = None
for batch in lines():
    events = [json.loads(line) for line in batch]
    if again:
        # What was on its way is passed over until it comes again.
        skipped = [event["position"] for event in events]
        first = skipped.index(again) if again in skipped else len(skipped)
        events, batch = events[first:], batch[first:]
    if not events:
        continue
    changes = [(event, line) for event, line in zip(events, batch) if event["event"] == "change"]
    refusal = store(changes)
    again = events[0]["position"] if refusal else None
    # With appendfsync everysec it may still lose a second: `WAITAOF 1 0 0` (Redis 7.2) would wait for that.
    print(f"nak {again} {refusal}" if refusal else events[-1]["position"], flush=True)
