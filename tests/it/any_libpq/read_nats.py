"""All messages of a stream of NATS JetStream, a line each: read_nats.py HOST PORT STREAM."""

import base64
import json
import socket
import sys

host, port, stream = sys.argv[1], int(sys.argv[2]), sys.argv[3]
connection = socket.create_connection((host, port), timeout=10)
server = connection.makefile("rb")


def ask(subject, question):
    content = json.dumps(question).encode() if question else b""
    connection.sendall(f"PUB {subject} inbox.api {len(content)}\r\n".encode() + content + b"\r\n")
    while True:
        line = server.readline()
        if line.startswith(b"MSG "):
            return json.loads(server.read(int(line.split()[-1]) + 2) or b"{}")
        if line.startswith(b"PING"):
            connection.sendall(b"PONG\r\n")
        elif not line or line.startswith(b"HMSG"):
            # Nobody answers: there is no stream yet.
            sys.exit(1)


connection.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB inbox.* 1\r\n')
state = ask(f"$JS.API.STREAM.INFO.{stream}", None).get("state", {})
for number in range(state.get("first_seq", 1), state.get("last_seq", 0) + 1):
    message = ask(f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": number})["message"]
    print(base64.b64decode(message["data"]).decode().strip())
