"""ctypes_asyncio.py CONNINFO CHANNEL [COUNT]: pgwake beside whatever else runs on asyncio.

    python3 ctypes_asyncio.py dbname=app orders
"""

import asyncio
import sys

import pgwake


async def main(conninfo, channel, count=-1):
    done = asyncio.get_running_loop().create_future()

    def on_ready():
        nonlocal count
        for event in events:
            if event.type == pgwake.LISTENING:
                print("listening", flush=True)
            elif event.type == pgwake.GAP:
                print(f"look at everything afresh: {event.message}", flush=True)
            elif event.type == pgwake.NOTIFICATION:
                print(f"{event.channel}: {event.payload}", flush=True)
                count -= 1
            if event.type == pgwake.FAILED or count == 0:
                asyncio.get_running_loop().remove_reader(events.fileno())
                return done.set_result(event.message if event.type == pgwake.FAILED else None)

    with pgwake.Events() as events:
        events.listen(events.connect(conninfo), channel)
        asyncio.get_running_loop().add_reader(events.fileno(), on_ready)
        sys.exit(await done)


asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4])))
