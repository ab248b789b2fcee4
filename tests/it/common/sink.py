"""A child of `pgwake … --to` that stores events as lines of a file, and misbehaves as long as it is told to.

sink.py DIRECTORY MODE RUNS: the first RUNS runs are of this mode, those after them are good. Into the file
`sink` go the position and the key of each event, into `runs` a line for each run.
"""

import json
import os
import select
import signal
import sys
import time

directory, mode, bad_runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
runs = os.open(directory + "/runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(runs, b"%d\n" % os.getpid())
if len(open(directory + "/runs").readlines()) > bad_runs:
    mode = "good"
sink = os.open(directory + "/sink", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def say(line):
    os.write(1, line.encode() + b"\n")


def store(events):
    lines = [f"{e['position']} {json.dumps(e.get('key') or e.get('payload') or e['event'])}" for e in events]
    os.write(sink, "".join(line + "\n" for line in lines).encode())


def read(most_s=None):
    """The events that are there, waiting for the first; nothing at the end of stdin."""
    global rest, ended
    if not select.select([0], [], [], most_s)[0]:
        return []
    data = os.read(0, 1 << 16)
    ended = not data
    *lines, rest = (rest + data).split(b"\n")
    return [json.loads(line) for line in lines]


rest, ended = b"", False
if mode == "ends":
    sys.exit(3)
if mode == "mute":
    signal.pause()
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("ready")
if mode == "deaf":
    signal.pause()
every = 1000 if mode == "thousand" else 1
waiting, is_first = [], True
while not ended:
    events = read(0.02 if waiting else None)
    if mode == "poisoned" and any((e.get("key") or {}).get("id") == 2 for e in events):
        sys.exit(4)
    if not events and not waiting:
        continue
    if mode == "unanswered":
        store(events)
    if mode in ("silent", "stubborn", "unanswered"):
        continue
    if mode == "garbage":
        say("hello world")
    elif mode == "cut":
        os.write(1, events[0]["position"].encode())
        sys.exit(0)
    elif mode == "never":
        say("FFFFFFFF/FFFFFFFF/7")
    elif mode == "closes":
        os.close(0)
        signal.pause()
    elif mode == "shuts":
        os.close(1)
        signal.pause()
    elif mode == "naks" and is_first:
        # What is on its way is passed over until the position comes again.
        say(f"nak {events[0]['position']} the sink is away")
        position = events[0]["position"]
        time.sleep(0.02)
        while True:
            events = read()
            if any(e["position"] == position for e in events):
                break
        while events[0]["position"] != position:
            events.pop(0)
        store(events)
        say(events[-1]["position"])
    elif mode == "drops":
        for event in events:
            if event["event"] == "change" and event["key"]["id"] % 2 == 0:
                say(f"drop {event['position']} an even one")
            else:
                store([event])
                say(event["position"])
    elif mode == "unordered":
        store(events)
        for event in [events[-1]] + events[:-1] + [events[-1]]:
            say(event["position"])
    else:
        waiting += events
        if len(waiting) >= every or not events:
            store(waiting)
            say(waiting[-1]["position"])
            waiting = []
    is_first = False
while mode == "stubborn":
    signal.pause()
if waiting:
    store(waiting)
    say(waiting[-1]["position"])
