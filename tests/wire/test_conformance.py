"""RFC 6455, by the cases of the Autobahn test suite: all that concern a server without compression.

They want an echo. So they meet our protocol once with an application that echoes, and only what makes it
deaf taken off; and once as it is, where the stream of a run ignores whatever is sent, in its limits.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import uvloop
from websockets.frames import Opcode

from service.ops.settings import Settings
from service.server import listening, server_of
from service.wire.allowance import CLIENT_FRAME_BYTES_MAX
from service.wire.frames import text_frame
from service.wire.protocol import StreamProtocol
from tests.server import ROOT, Server

CONFORMANCE = [f"{chapter}.*" for chapter in (1, 2, 3, 4, 5, 6, 7, 10)]
LARGE = ["9.*"]  # messages up to 16 MiB, in frames of 64 bytes to all at once
CASES = 247
LARGE_CASES = 54
TIMER_MS = 500  # the cases give up after half a second or more: what took less was not a matter of time
ATTEMPTS = 4


class EchoProtocol(StreamProtocol):
    """Hands on the messages that StreamProtocol drops, of any size and number; all else is as it is."""

    message_bytes_max = 64 * 1024 * 1024

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self._message: list[bytes] = []

    def _spend(self) -> bool:
        return True

    def _drop(self, frame) -> None:
        super()._drop(frame)
        if frame.opcode is not Opcode.CONT:
            self._message = []
        self._message.append(bytes(frame.data))
        if frame.fin and not self.close_sent:
            self.queue.put_nowait(
                {"type": "websocket.receive", self.curr_msg_data_type: b"".join(self._message)}
            )


async def echo(scope, receive, send) -> None:
    """Answer text by the way of ready frames, as every stream does, and bytes by uvicorn's."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if "text" in message:
            await send({"type": "websocket.send", "preframed": text_frame(message["text"])})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


@pytest.fixture(scope="module")
def echo_url():
    """Where our own server listens, with EchoProtocol in the place of StreamProtocol."""
    with listening("127.0.0.1", 0) as sockets:
        server = server_of(echo, Settings())
        assert server.config.ws is StreamProtocol
        server.config.ws = EchoProtocol
        thread = threading.Thread(target=lambda: uvloop.run(server.serve(sockets)), daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def stream_url(tmp_path_factory):
    """The stream of a run that has nothing to say."""
    directory = tmp_path_factory.mktemp("stream")
    with Server(directory, TAILRACE_DRAIN_TIMEOUT_S=0) as server:
        server.create("wait", {"steps": {"rest": {"type": "wait", "config": {"duration": "1h"}}}})
        run_id = server.execute("wait")
        deadline = time.monotonic() + 30
        while server.run(run_id)["lastSeq"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"{server.ws_url}/api/v2/workflows/runs/{run_id}/stream?after=tail"
        assert '"level": "error"' not in server.diagnostics.read_text()


def met(url: str, cases: list[str], concurrency: int) -> list[dict]:
    """Return how the cases went."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.wire.autobahn", url, str(concurrency), *cases],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def verdicts(url: str, cases: list[str], concurrency: int, wrong) -> dict[str, dict]:
    """Return how each case went; one that waited for us in vain may try again: the machine may be busy."""
    found = {each["case"]: each for each in met(url, cases, concurrency)}
    for _ in range(ATTEMPTS - 1):
        late = [name for name, each in found.items() if wrong(each) and each["ms"] >= TIMER_MS]
        if late:
            found |= {each["case"]: each for each in met(url, late, 1)}
    return found


@pytest.mark.parametrize(("cases", "count"), [(CONFORMANCE, CASES), (LARGE, LARGE_CASES)])
def test_every_case_passes_with_an_echo(echo_url, cases, count):
    found = verdicts(echo_url, cases, 4, lambda each: not each["passed"])
    assert len(found) == count
    failed = {name: (each["verdict"], each["why"]) for name, each in found.items() if not each["passed"]}
    assert failed == {}


def test_text_is_refused_as_soon_as_it_is_not_utf_8(echo_url):
    """Stricter than a pass: these two say which fragment of a message shows it."""
    found = verdicts(echo_url, ["6.4.1", "6.4.2"], 2, lambda each: not each["verdict"].startswith("OK"))
    assert {each["verdict"] for each in found.values()} == {"OK, close OK"}


def told(case: dict) -> str:
    """Say how the stream of a run has met a case, or what is wrong with that."""
    if case["passed"]:
        return "passed"
    if not case["expected_close"]["closedByMe"]:
        return f"wrong: the case wants to be closed {case['expected_close']['closeCode']}"
    if any(len(event[1]) > CLIENT_FRAME_BYTES_MAX for events in case["expected"] for event in events):
        return "too large" if case["code"] == 1009 and case["clean"] else "wrong: not closed with 1009"
    unheard = [[event for event in events if event[0] != "message"] for events in case["expected"]]
    if case["received"] not in unheard:
        return f"wrong: {case['received']}, not {unheard}"
    if case["dropped_by_case"]:
        return "ignored" if case["code"] is None else "wrong: closed without need"
    return "ignored" if case["closed_by_case"] and case["code"] == 1000 and case["clean"] else "wrong: closed"


def test_a_stream_that_ignores_what_it_is_told_keeps_to_the_protocol(stream_url):
    def wrong(each):
        return told(each).startswith("wrong")

    found = verdicts(stream_url, CONFORMANCE, 32, wrong)
    assert {name: (told(each), each) for name, each in found.items() if wrong(each)} == {}
    assert Counter(map(told, found.values())) == {"passed": 151, "ignored": 89, "too large": 7}
