"""A server of the engine noop in a process of its own, which tells where its processor time goes.

In: lines on standard input. Out: first the port, then for each line the seconds so far of the whole process and of its
threads, one JSON object a line. For `test_overhead`, run as `python -m tests.soak.serving`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

import uvicorn

from server import seams
from server.house import House
from server.live import Limits
from server.security import Guard
from server.studio import build_studio
from svp_stream.config import Config, Media, Model, Speech, Style


def seconds() -> dict[str, float]:
    """Processor time by thread name; `all` is the process."""
    found = {"all": time.process_time()}
    for thread in threading.enumerate():
        if thread.ident is not None:
            clock = time.pthread_getcpuclockid(thread.ident)
            found[thread.name] = found.get(thread.name, 0.0) + time.clock_gettime(clock)
    return found


def told() -> dict[str, object]:
    """What the sessions say of their encodings."""
    lives = HOUSE.signaling.registry.holders()
    return {"cpu": seconds(), "encodings": [e for live in lives for e in live.report.last.get("encodings", [])]}


def build(codec: str) -> House:
    """The house, as the command line would build it."""
    settings = Config(
        model=Model(engine="noop"), style=Style(default="warm"), speech=Speech(detector="silero"),
        media=Media.model_validate({"video_codec": codec}),
    )  # fmt: skip
    return House(
        build_studio(settings), Guard(None, local=True), capacity=8, media=settings.media, limits=Limits(linger_s=600)
    )


async def serve() -> None:
    """Until standard input ends."""
    server = uvicorn.Server(uvicorn.Config(HOUSE.app, port=0, log_config=None, access_log=False, loop="asyncio"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    sys.stdout.write(f"{server.servers[0].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    while await asyncio.to_thread(sys.stdin.readline):
        sys.stdout.write(json.dumps(told()) + "\n")
        sys.stdout.flush()
    server.should_exit = True
    await serving


if __name__ == "__main__":
    seams.gather_loopback()
    HOUSE = build(sys.argv[1] if len(sys.argv) > 1 else "vp8")
    asyncio.run(serve())
