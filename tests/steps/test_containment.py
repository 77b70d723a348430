"""Nothing of a command outlives its attempt, nor the service."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path

import pytest

from service.steps.command import Command
from service.steps.containment import Contained, Containment
from service.steps.guard import LINGER_S, TERM_GRACE_S
from tests.steps.attempts import Said, attempt
from tests.steps.conftest import until

Survivors = Callable[[], list[str]]
ROOT = Path(__file__).parents[2]

# Each leaves a marked process behind in another way; "ready" says that it is there.
ESCAPES = {
    "child": "{sleep} & echo ready; wait",
    "setsid": "setsid {sleep} & echo ready; wait",
    "daemon": "(setsid sh -c '{sleep} & exec >/dev/null 2>&1' &) ; echo ready; sleep 300",
    "double fork": "( ( setsid {sleep} </dev/null >/dev/null 2>&1 & ) & ) ; echo ready; sleep 300",
    "ignores TERM": "trap '' TERM HUP INT; {sleep} & echo ready; while :; do sleep 1; done",
    "nohup": "nohup {sleep} >/dev/null 2>&1 & echo ready; wait",
    "stopped": "{sleep} & kill -STOP $!; echo ready; kill -STOP $$",
    "deep": "deep() {{ if [ $1 -gt 0 ]; then ( deep $(($1 - 1)) & wait ); else setsid {sleep}; fi; }};"
    " deep 3 & echo ready; wait",
}


def config(script: str, mark: str, **more: object) -> dict[str, object]:
    return {
        "command": "sh",
        "args": ["-c", script.format(sleep=f'sh -c "sleep 300; : {mark}"'), mark],
        **more,
    }


class Ready(Said):
    """Knows when the command has said that it is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def at_once(self, level: str, lines: list[str]) -> bool:
        if "ready" in lines:
            self.event.set()
        return super().at_once(level, lines)


@pytest.mark.parametrize("escape", ESCAPES)
async def test_a_cancelled_attempt_leaves_nothing(
    command: Command, mark: str, survivors: Survivors, escape: str
) -> None:
    ready = Ready()
    async with asyncio.timeout(20):
        running = asyncio.create_task(command.run(attempt(config(ESCAPES[escape], mark), emit=ready)))
        await ready.event.wait()
        while not survivors():  # the last one may be between fork and exec, without a name
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert survivors() == []


@pytest.mark.parametrize("escape", ["setsid", "ignores TERM", "double fork"])
async def test_a_timeout_leaves_nothing(
    command: Command, mark: str, survivors: Survivors, escape: str
) -> None:
    started = time.monotonic()
    outcome = await command.run(attempt(config(ESCAPES[escape], mark, timeout=500)))
    assert outcome.status == "timeout"
    assert outcome.document["stdout"] == "ready\n"
    assert survivors() == []
    assert time.monotonic() - started < 0.5 + TERM_GRACE_S + 3


@pytest.mark.parametrize(
    "script",
    [
        "setsid {sleep} & echo ready",
        "{sleep} & echo ready",
        "(setsid {sleep} &) & echo ready",
        "trap '' TERM; {sleep} & echo ready",
        "nohup {sleep} >/dev/null 2>&1 & echo ready",
    ],
)
async def test_what_a_finished_command_left_is_ended(
    command: Command, mark: str, survivors: Survivors, script: str
) -> None:
    started = time.monotonic()
    outcome = await command.run(attempt(config(script, mark)))
    assert outcome.status == "success"
    assert outcome.document["stdout"] == "ready\n"
    assert survivors() == []
    assert time.monotonic() - started < LINGER_S + 3


async def test_what_ends_soon_may_end_by_itself(command: Command) -> None:
    outcome = await command.run(
        attempt({"command": "sh", "args": ["-c", "(sleep 0.1; echo late) & echo soon"]})
    )
    assert outcome.document["stdout"] == "soon\nlate\n"


async def test_a_command_may_end_in_its_own_way(command: Command) -> None:
    said = Ready()
    script = "trap 'echo cleaned > $0; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    target = Path(f"/tmp/tailrace-test-{os.getpid()}")
    try:
        running = asyncio.create_task(
            command.run(attempt({"command": "sh", "args": ["-c", script, str(target)]}, emit=said))
        )
        await said.event.wait()
        started = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert time.monotonic() - started < TERM_GRACE_S
        assert target.read_text() == "cleaned\n"
    finally:
        target.unlink(missing_ok=True)


async def test_a_chain_of_forks_is_caught(command: Command, mark: str, survivors: Survivors) -> None:
    script = (
        "import os,sys\nprint('ready', flush=True)\nos.setsid() if os.getpid() != os.getsid(0) else None\n"
        "while True:\n    if os.fork(): os._exit(0)\n"
    )
    ready = Ready()
    async with asyncio.timeout(30):
        running = asyncio.create_task(
            command.run(
                attempt({"command": sys.executable, "args": ["-c", script, mark], "timeout": 600}, emit=ready)
            )
        )
        await ready.event.wait()
        await running
    assert survivors() == []


async def test_a_crowd_of_forks_is_caught(command: Command, mark: str, survivors: Survivors) -> None:
    script = f"i=0; while [ $i -lt 150 ]; do (setsid sh -c 'sleep 300; : {mark}' &) ; i=$((i+1)); done; echo ready; sleep 300"
    ready = Ready()
    async with asyncio.timeout(40):
        running = asyncio.create_task(
            command.run(attempt({"command": "sh", "args": ["-c", script]}, emit=ready))
        )
        await ready.event.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert survivors() == []


SERVICE = """
import asyncio, sys
from service.steps import Attempt, Emit
from service.steps.command import Command

class Printing(Emit):
    def at_once(self, level, lines):
        print(*lines, sep="\\n", flush=True)
        return True

async def main():
    step = Command(commands=frozenset({"*"}), output_bytes_max=10_000_000, wanted=sys.argv[1])
    print(step.containment(), flush=True)
    config = {"command": "sh", "args": ["-c", sys.argv[2]]}
    await asyncio.gather(*(step.run(Attempt(config, 1, "k", 0, Printing())) for _ in range(3)))

asyncio.run(main())
"""


@pytest.mark.parametrize("wanted", ["pid namespace", "watchdog"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_service_leaves_nothing(mark: str, survivors: Survivors, wanted: str, number: int) -> None:
    script = f"trap '' TERM; setsid sh -c 'sleep 300; : {mark}' & (nohup sh -c 'sleep 300; : {mark}' >/dev/null 2>&1 &); echo ready; sleep 300"
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, wanted, script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert service.stdout is not None
    with service, service.stdout as said:
        assert said.readline().strip() == wanted
        assert [said.readline() for _ in range(3)] == ["ready\n"] * 3
        assert until(lambda: len([line for line in survivors() if str(service.pid) not in line.split()]) >= 6)
        service.send_signal(number)
        service.wait()
    assert until(lambda: survivors() == []), survivors()


async def test_a_killed_guard_fails_the_step_and_the_next_one_runs(
    command: Command, mark: str, survivors: Survivors
) -> None:
    ready = Ready()
    running = asyncio.create_task(command.run(attempt(config(ESCAPES["setsid"], mark), emit=ready)))
    async with asyncio.timeout(20):
        await ready.event.wait()
        starter = command._containment._guard
        assert starter is not None
        (guard,) = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        os.kill(int(guard), signal.SIGKILL)
        outcome = await running
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "killed"
    assert until(lambda: survivors() == [])
    assert (await command.run(attempt({"command": "true"}))).status == "success"


async def test_a_killed_starter_is_started_again(command: Command) -> None:
    starter = command._containment._guard
    assert starter is not None
    starter.kill()
    starter.wait()
    assert (await command.run(attempt({"command": "true"}))).status == "success"
    assert command._containment._guard is not starter


async def test_no_zombie_and_no_open_file_is_left(command: Command) -> None:
    await command.run(attempt({"command": "true"}))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for config in (
        {"command": "true"},
        {"command": "true", "cwd": "/nowhere"},
        {"command": "sleep", "args": [9], "timeout": 1},
    ):
        await asyncio.gather(*(command.run(attempt(config)) for _ in range(10)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    starter = command._containment._guard
    assert starter is not None
    children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
    assert until(lambda: children.read_text() == "")


async def test_a_command_holds_no_file_but_its_three(command: Command) -> None:
    outcome = await command.run(attempt({"command": "ls", "args": ["/proc/self/fd"]}))
    assert outcome.document["stdout"].split() == ["0", "1", "2", "3"]  # 3 is the directory being listed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's commands see the files of their guard")
async def test_a_command_opens_no_pipe_of_its_guard_and_starter(command: Command) -> None:
    """What is written into it, the guard would take for its own."""
    script = (
        "p=$PPID; for n in 1 2; do [ $p -gt 0 ] || break; for f in /proc/$p/fd/*; do"
        ' (: 2>/dev/null >>"$f") 2>/dev/null && readlink "$f"; done;'
        " p=$(sed -n 's/^PPid:.//p' /proc/$p/status); done"
    )
    outcome = await command.run(attempt({"command": "sh", "args": ["-c", script]}))
    assert outcome.document["exitCode"] == 0
    assert "/dev/null" in outcome.document["stdout"]
    assert "pipe:" not in outcome.document["stdout"]


@pytest.mark.parametrize("word", ["failed ESCAPED-INTO-IT", "failed exec x", "failed", "\udcff", "gone"])
async def test_a_guard_that_was_made_to_say_something_else_has_ended(word: str) -> None:
    said = Contained()
    said._far_control.send(word.encode(errors="surrogateescape"))
    with pytest.raises(ConnectionResetError):
        await said.started()
    said._far_control.send(b"gone 0x1")
    assert await said.gone() is None
    said.let_go()
    said.close()


async def test_closing_ends_the_starter() -> None:
    containment = Containment()
    containment.start()
    starter = containment._guard
    assert starter is not None
    await containment.close()
    assert starter.returncode is not None
    await containment.close()


async def test_a_namespaced_command_sees_only_itself(mark: str) -> None:
    command = Command(commands=frozenset({"*"}), output_bytes_max=1000)
    if command.containment() == "pid namespace":
        outcome = await command.run(
            attempt({"command": "sh", "args": ["-c", f"ls /proc | grep -c '^[0-9]'; : {mark}"]})
        )
        assert int(outcome.document["stdout"]) <= 4
        outcome = await command.run(attempt({"command": "sh", "args": ["-c", f"kill -9 {os.getpid()}"]}))
        assert outcome.document["exitCode"] == 1
    await command.close()


async def test_a_command_that_lacks_a_file_descriptor_leaves_none_behind() -> None:
    containment = Containment()
    containment.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before, ended = open_files(), []
    try:
        for free in range(16):
            unused = (number for number in count() if number not in before)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(unused, free, None)), hard))
            try:
                command = await containment.run("/bin/true", ["true"], {}, cwd=None, stdin="in")
            except OSError:
                ended.append("not started")
            else:
                ended.append(f"status {await command.gone()}")
                await command.end()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert open_files() == before, f"with {free} descriptors"
    finally:
        await containment.close()
    assert ended == sorted(ended)
    assert set(ended) == {"not started", "status 0"}


def open_files() -> set[int]:
    """Return the numbers of this process's open files."""
    return {int(file.name) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
