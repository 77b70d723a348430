"""The kernel fails a flush or a write of the writer; what was answered is compared with what is stored."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import LogUnavailable
from service.log.sqlite import SqliteLog
from tests.log.contract import read_stream, texts

APPENDS = 18
CHILD = f"""
import asyncio, json, sys
from pathlib import Path
from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import NewEvent, commit
from service.log.sqlite import SqliteLog

commit.RETRY_INTERVAL_S = 0.0

async def main():
    log = SqliteLog.open(Path(sys.argv[1]))
    print("open", flush=True)
    seq = -1
    for number in range({APPENDS}):
        try:
            seq = (await log.append("run/a", [NewEvent("note", b"%d" % number)], expected_seq=seq)).seq
            answer = True
        except LogUnavailable as error:
            answer = error.stored
        except WrongExpectedSeq as error:
            answer, seq = "behind", error.actual
        print(json.dumps([number, answer]), flush=True)
    if sys.argv[2] == "kill":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    await log.close()

try:
    asyncio.run(main())
except LogUnavailable as error:
    print(json.dumps(["open", error.reason]), flush=True)
"""


def run_with_fault(path: Path, fault: str, end: str) -> dict[int, object]:
    """Return what the child was told of each append, under ``fault`` (strace's inject expression)."""
    trace = path.with_name("trace")
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"inject={fault}"]
    done = subprocess.run(
        [*strace, sys.executable, "-c", CHILD, str(path), end],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {0, -signal.SIGKILL, 128 + signal.SIGKILL}, done.stderr
    assert "(INJECTED)" in trace.read_text(), "the fault was not felt"
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {number: answer for number, answer in lines if isinstance(number, int)}


async def check(path: Path, answers: dict[int, object]) -> None:
    log = SqliteLog.open(path)
    stored = [int(text) for text in texts(await read_stream(log, "run/a"))]
    await log.close()
    acknowledged = [number for number, answer in answers.items() if answer is True]
    unknown = [number for number, answer in answers.items() if answer is None]
    assert set(acknowledged) <= set(stored), (answers, stored)
    assert set(stored) <= {*acknowledged, *unknown}, (answers, stored)
    assert stored == sorted(set(stored))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make the kernel fail")
@pytest.mark.parametrize("end", ["close", "kill"])
@pytest.mark.parametrize(
    "fault",
    [
        *(f"fdatasync:error=EIO:when={n}" for n in (11, 12, 14, 17)),
        *(f"fdatasync:error=EIO:when={n}+" for n in (11, 15)),
        *(f"pwrite64:error=EIO:when={n}" for n in (21, 27, 32, 38)),
        *(f"pwrite64:error=ENOSPC:when={n}" for n in (22, 29, 35)),
        "pwrite64:error=ENOSPC:when=30+",
        "pwrite64:error=EIO:when=31+",
    ],
)
async def test_an_answer_is_true_whatever_the_kernel_fails(tmp_path: Path, fault: str, end: str) -> None:
    path = tmp_path / "tailrace.db"
    await SqliteLog.open(path).close()  # strace counts per thread: only the writer's counts get that far now
    answers = await asyncio.to_thread(run_with_fault, path, fault, end)
    assert len(answers) == APPENDS, "the service must go on answering"
    if "pwrite64:error=ENOSPC" in fault:
        assert None not in answers.values(), "a full disk is certain"
    if fault.endswith("+"):  # else it is stored after all, or is not, and the answer says which
        assert set(answers.values()) > {True}, answers
    await check(path, answers)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
async def test_a_full_disk_refuses_reads_on_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.log.commit.RETRY_INTERVAL_S", 0.0)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 4 * 1024 * 1024)
        await fill_and_recover(disk / "tailrace.db", ballast)
    finally:
        subprocess.run(["umount", disk], check=True)


async def fill_and_recover(path: Path, ballast: Path) -> None:
    from service.log import NewEvent

    event = NewEvent("note", b"y" * 30_000)
    log = SqliteLog.open(path)
    seq = -1
    refused = None
    while refused is None:
        try:
            seq = (await log.append("run/a", [event], expected_seq=seq)).seq
        except LogUnavailable as error:
            refused = error
    assert refused.stored is False
    for _ in range(3):
        with pytest.raises(LogUnavailable) as again:
            await log.append("run/a", [event] * 5, expected_seq=seq)
        assert again.value.stored is False
    assert log.unavailable
    assert len(await read_stream(log, "run/a")) == seq + 1
    ballast.unlink()
    seq = (await log.append("run/a", [event], expected_seq=seq)).seq
    assert log.unavailable is None
    await log.close()
    log = SqliteLog.open(path)
    assert len(await read_stream(log, "run/a")) == seq + 1
    await log.close()
