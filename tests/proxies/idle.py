"""A silence longer than any timeout between client and service: ``python -m tests.proxies.idle`` takes 75 s.

The service as it starts, nginx and HAProxy as they are documented, every way to watch a run: nothing happens in
it for IDLE_S, then something does, and all get it on the connections that they had. The tests run it beside
themselves (conftest.py), so that it costs them no time.
"""

import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.proxies.documented import NAME
from tests.proxies.proxy import KINDS, Proxy
from tests.proxies.speaker import Speaker, stored
from tests.proxies.ways import WAYS
from tests.server import ROOT, Server

IDLE_S = 70.0
LIVED = f"every stream lived through {IDLE_S:g} s of silence"


def survive(directory: Path, idle_s: float = IDLE_S) -> None:
    """Return after every stream has lived through the silence. Raises what one of them met instead."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(directory, TAILRACE_HOSTS=NAME))
        speaker = stack.enter_context(Speaker(server, directory / "idle"))
        proxies = [stack.enter_context(Proxy(kind, directory, server.port)) for kind in KINDS]
        speaker.say("before")
        streams = [stack.enter_context(way(proxy, speaker.id)) for proxy in proxies for way in WAYS]
        got = [stream.until("before") for stream in streams]
        time.sleep(idle_s)
        speaker.say("after")
        for events, stream in zip(got, streams, strict=True):
            events += stream.until("after")
        speaker.end()
        for events, stream in zip(got, streams, strict=True):
            events += stream.rest()
            assert events == stored(server, speaker.id)


def begin() -> subprocess.Popen[str]:
    """Return a process that is at it; when it has ended well, it has printed LIVED."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.proxies.idle"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    with tempfile.TemporaryDirectory() as directory:
        survive(Path(directory))
        print(LIVED)
