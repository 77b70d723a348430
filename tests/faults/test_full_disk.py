"""A full disk stops accepting and nothing else, and work resumes as soon as there is space."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.full_disk import fill, full_disks, small_disk
from tests.server import START_TIMEOUT_S, Server

POSITIONS = 4
RUNS = 60
NAP = {"steps": [{"id": "a", "type": "wait", "config": {"duration": "1s"}}]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as found:
        if found is None:
            pytest.skip("may not mount a tmpfs: run as root")
        yield found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)  # between two looks: nothing tells


def test_a_full_disk_refuses_reads_on_and_recovers(tmp_path):
    found = full_disks(tmp_path, seed=1, positions=POSITIONS)
    if found is None:
        pytest.skip("may not mount a tmpfs: run as root")
    faults, figures = found
    assert faults == []
    assert figures["felt"] == POSITIONS, "it was never full"


def test_a_start_on_a_full_disk_waits_for_space_and_says_so(tmp_path, disk):
    server = Server(disk, TAILRACE_MIN_FREE_BYTES=0)
    server.diagnostics = tmp_path / "diagnostics.txt"
    with server, ThreadPoolExecutor(1) as beside:
        server.create("nap", NAP)
        run_id = server.execute("nap")
        server.kill_hard()
        ballast = fill(disk, 0)
        starting = beside.submit(server.start)
        until(lambda: '"the disk is full, waiting for space"' in server.diagnostics.read_text())
        said = Counter[str]()
        while not said["disk_full"]:
            assert not starting.done()
            try:
                answer = server.get("/ready")
            except OSError:  # it does not listen yet
                continue
            said += Counter(reason["code"] for reason in answer.json["reasons"])
        assert server.get("/health").status == 200
        ballast.unlink()
        starting.result()
        assert server.finished(run_id)["status"] == "success"


def test_a_full_disk_is_told_once_and_not_by_each_run_that_waits(tmp_path, disk):
    server = Server(disk, TAILRACE_MIN_FREE_BYTES=0, TAILRACE_DIAGNOSTICS_LEVEL="debug")
    server.diagnostics = tmp_path / "diagnostics.txt"
    with server:
        server.create("nap", NAP)
        runs = [server.execute("nap") for _ in range(RUNS)]
        ballast = fill(disk, 0)
        more = disk / "more"

        def many_wait() -> bool:
            with more.open("ab", buffering=0) as file, suppress(OSError):  # what the lists give back, too
                while True:
                    file.write(bytes(4096))
            return server.diagnostics.read_text().count("append failed, trying again") >= RUNS // 2

        until(many_wait)
        ballast.unlink()
        more.unlink()
        assert {server.finished(run_id)["status"] for run_id in runs} == {"success"}
    lines = [json.loads(line) for line in server.diagnostics.read_text().splitlines()]
    told = Counter(
        each["message"] for each in lines if each["level"] != "debug" and each["message"] != "request"
    )
    assert told["log cannot be written"] == told["log can be written again"]
    assert sum(told.values()) < RUNS // 2, told
