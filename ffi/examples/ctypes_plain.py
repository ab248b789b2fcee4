"""ctypes_plain.py CONNINFO CHANNEL [COUNT]: the original program on pgwake, in a few lines.

    python3 ctypes_plain.py dbname=app orders
"""

import sys

import pgwake

count = int(sys.argv[3]) if len(sys.argv) > 3 else -1

events = pgwake.Events()
events.listen(events.connect(sys.argv[1]), sys.argv[2])
for event in events.waiting():
    if event.type == pgwake.LISTENING:
        print("listening", flush=True)
    if event.type == pgwake.GAP:
        print(f"look at everything afresh: {event.message}", flush=True)
    if event.type == pgwake.FAILED:
        sys.exit(event.message)
    if event.type == pgwake.NOTIFICATION:
        print(f"{event.channel}: {event.payload}", flush=True)
        count -= 1
    if count == 0:
        break
events.close()
