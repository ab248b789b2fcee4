#!/usr/bin/env python3
"""Events into a stream of NATS JetStream, each known by its position, so that the server refuses repeats.

    pgwake -d dbname=app stream --table orders --slot nats --to ffi/examples/bridges/nats.py HOST PORT STREAM

needs nothing but Python. The stream's subject is STREAM.TABLE, and its name should name the server and its
timeline, too: after a recovery to a point in time positions come again (`SELECT system_identifier FROM
pg_control_system()`, `timeline_id FROM pg_control_checkpoint()`).
"""

import json
import socket
import sys

host, port, stream = sys.argv[1], int(sys.argv[2]), sys.argv[3]

connection = socket.create_connection((host, port), timeout=10)
server = connection.makefile("rb")


def send(data):
    connection.sendall(data)


def message():
    """The next message: its subject and its content. What the server says besides is dealt with."""
    while True:
        line = server.readline()
        if line.startswith(b"MSG "):
            _, subject, _, *_, size = line.split()
            content = server.read(int(size) + 2)[:-2]
            return subject.decode(), content
        if line.startswith(b"PING"):
            send(b"PONG\r\n")
        elif not line or line.startswith(b"-ERR"):
            sys.exit(f"NATS: {line.decode().strip() or 'the server has hung up'}")


def publish(subject, reply, content, identity=None):
    header = f"NATS/1.0\r\nNats-Msg-Id: {identity}\r\n\r\n".encode() if identity else b"NATS/1.0\r\n\r\n"
    sizes = f"{len(header)} {len(header) + len(content)}"
    return f"HPUB {subject} {reply} {sizes}\r\n".encode() + header + content + b"\r\n"


def ask(subject, question):
    send(publish(subject, "inbox.api", json.dumps(question).encode()))
    return json.loads(message()[1])


def lines():
    """Whole lines from stdin, as many as are there at once."""
    rest = b""
    while data := sys.stdin.buffer.raw.read(1 << 16):
        *whole, rest = (rest + data).split(b"\n")
        if whole:
            yield whole


send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB inbox.* 1\r\n')
# The window in which repeats are known is two minutes unless it is said.
settings = {"name": stream, "subjects": [f"{stream}.*"], "duplicate_window": 24 * 3600 * 10**9}
made = ask(f"$JS.API.STREAM.CREATE.{stream}", settings)
if "error" in made and made["error"].get("err_code") != 10058:  # It is there already, with other settings.
    sys.exit(f"NATS: {made['error']['description']}")
print("ready", flush=True)

for batch in lines():
    events = [json.loads(line) for line in batch]
    wanted = [event for event in events if event["event"] == "change"]
    send(b"".join(
        publish(f"{stream}.{event['table']}", f"inbox.{number}", line, event["position"])
        for number, (event, line) in enumerate(zip(events, batch))
        if event["event"] == "change"
    ))
    for _ in wanted:
        subject, content = message()
        answer = json.loads(content or b'{"error": {"description": "no stream takes it"}}')
        if "error" in answer:
            position = events[int(subject.removeprefix("inbox."))]["position"]
            sys.exit(f"NATS did not store {position}: {answer['error']['description']}")
    print(events[-1]["position"], flush=True)
