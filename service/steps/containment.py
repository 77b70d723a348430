"""Commands as the service sees them: started at the guard's (guard.py), and gone when it says so.

Every command has a control socket. It closes when the service lets go of it or dies, kill -9 included;
either way the guard at its other end kills all that is left of the command.
"""

import asyncio
import ctypes
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import msgspec

from service.steps.pipe import Pipe

Containing = Literal["pid namespace", "watchdog", "process group"]

START_TIMEOUT_S = 20.0
DEATH_S = 0.05  # a process's sockets close a moment before it can be known to be dead
_PACKET_BYTES = 64
_PR_SET_DUMPABLE = 4
# A command of root's can do as it likes with its own guard: what that says may be anything.
_FAILED = re.compile(r"failed (?P<stage>[a-z]+) (?P<number>[0-9]{1,4})")
_GONE = re.compile(r"gone (?P<status>[0-9]{1,9})")
_GUARD = Path(__file__).with_name("guard.py")


class CannotStart(Exception):
    """A command did not start: ``stage`` (contain, start, cwd, exec) and the errno."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(f"{stage}: {os.strerror(number)}")
        self.stage = stage
        self.number = number


class Containment:
    """Starts commands that cannot outlive their attempt or the service.

    ``wanted`` caps what is tried; ``start`` says what is in force. ``files_max``: how many files a command
    may open until it asks for more, 0 for as many as this process. The guard's process is started at first
    use, and again if it has died.
    """

    def __init__(self, wanted: Containing = "pid namespace", files_max: int = 0) -> None:
        self._wanted = wanted
        self._files_max = files_max
        self._guard: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._kind: Containing = "process group"
        self._sending = asyncio.Lock()

    def start(self) -> Containing:
        """Start the guard's process unless it runs, and return what containment the kernel allows.

        Blocks for the time a Python process takes to start (about 50 ms). Raises OSError.
        """
        if self._door is not None:
            return self._kind
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            self._guard = subprocess.Popen(  # noqa: S603  our own file
                [sys.executable, "-I", "-S", str(_GUARD), self._wanted, str(self._files_max)],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True, env={},
            )  # fmt: skip
            undo.pop_all()
        ours.settimeout(START_TIMEOUT_S)
        try:
            self._kind = msgspec.convert(ours.recv(_PACKET_BYTES).decode(), Containing)
        except (OSError, msgspec.ValidationError) as error:
            ours.close()
            self._guard.kill()
            self._guard.wait()
            raise OSError("the guard of commands did not start") from error
        if self._kind != "pid namespace":
            _hide()
        ours.setblocking(False)
        self._door = ours
        return self._kind

    async def run(
        self, path: str, argv: Sequence[str], env: Mapping[str, str], *, cwd: str | None, stdin: str
    ) -> "Contained":
        """Start the executable ``path`` and return the running command.

        Raises CannotStart, or OSError when no process can be made at all.
        """
        # json and not msgspec: an environment may hold bytes that are no text, and json keeps them.
        request = json.dumps({"path": path, "argv": argv, "env": env, "cwd": cwd}).encode()
        for last_try in (False, True):
            self.start()
            starter = self._guard
            assert starter is not None
            command = Contained()
            try:
                await self._hand_over(command, request, stdin.encode("utf-8", "surrogateescape"))
                await command.started()
            except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError):
                await asyncio.sleep(DEATH_S)
                if starter.poll() is None:
                    return command  # its own guard was killed: it may have run, and must not run again
                command.close()  # the guards' starter was killed; nothing has started
                await self.close()
                if last_try:
                    raise
            except BaseException:
                await command.end(b"kill")
                raise
            else:
                return command
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """End the guard's process. Commands that still run are killed when their control sockets close."""
        door, guard = self._door, self._guard
        self._door = self._guard = None
        if door is not None:
            door.close()
        if guard is not None:
            await asyncio.to_thread(guard.wait)

    async def _hand_over(self, command: "Contained", request: bytes, stdin: bytes) -> None:
        with ExitStack() as stack:
            stack.callback(command.let_go)
            fds = [_in_memory(data, stack) for data in (request, stdin)]
            async with self._sending:
                assert self._door is not None
                while not _sent(self._door, [*fds, *command.far_ends]):
                    await _writable(self._door.fileno())


class Contained:
    """A command that runs: its output, and its end."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            self._control, self._far_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._control.close)
            undo.callback(self._far_control.close)
            self._control.setblocking(False)
            out, self._far_out = os.pipe()
            undo.callback(os.close, out)
            undo.callback(os.close, self._far_out)
            err, self._far_err = os.pipe()
            undo.pop_all()
        self.stdout, self.stderr = Pipe(out), Pipe(err)
        self._status: int | None = None
        self._gone = False

    @property
    def far_ends(self) -> tuple[int, int, int]:
        """The guard's ends of stdout, stderr and the control socket."""
        return self._far_out, self._far_err, self._far_control.fileno()

    def let_go(self) -> None:
        """Close the guard's ends here, so that its end is seen."""
        for fd in (self._far_out, self._far_err):
            os.close(fd)
        self._far_control.close()

    async def started(self) -> None:
        """Return once the command runs. Raises CannotStart, ConnectionResetError."""
        word = await self._packet()
        if failed := _FAILED.fullmatch(word):
            raise CannotStart(failed["stage"], int(failed["number"]))
        if word != "started":
            raise ConnectionResetError("the guard has ended")

    async def gone(self) -> int | None:
        """Return the command's wait status once nothing of it is left.

        None: its guard was killed, or made to say something else; what is left of the command ends with it.
        """
        while not self._gone:
            word = await self._packet()
            if word == "started":
                continue
            self._gone = True
            if gone := _GONE.fullmatch(word):
                self._status = int(gone["status"])
            self.stdout.finish()
            self.stderr.finish()
        return self._status

    async def end(self, word: bytes = b"term") -> None:
        """Return once nothing of the command is left and let go of it.

        If it still runs it gets SIGTERM, and SIGKILL ``guard.TERM_GRACE_S`` later; with ``kill``, or when
        this is cancelled, SIGKILL at once.
        """
        try:
            if not self._gone:
                with suppress(OSError):  # its guard is no more
                    self._control.send(word)
                await self.gone()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the command: whatever still runs is killed."""
        self._control.close()
        self.stdout.close()
        self.stderr.close()

    async def _packet(self) -> str:
        while True:
            try:
                return self._control.recv(_PACKET_BYTES).decode(errors="replace")
            except BlockingIOError:
                await _readable(self._control.fileno())
            except ConnectionResetError:
                return ""


def _hide() -> None:
    """Keep this process's environment, where secrets are, its files and its memory from commands of its user.

    They see it in /proc. Root's commands can be kept from nothing.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(fd, _resolve, future)
    try:
        await future
    finally:
        loop.remove_reader(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_writer(fd, _resolve, future)
    try:
        await future
    finally:
        loop.remove_writer(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _sent(door: socket.socket, fds: Sequence[int]) -> bool:
    try:
        socket.send_fds(door, [b"run"], fds)
    except BlockingIOError:
        return False
    return True


def _in_memory(data: bytes, stack: ExitStack) -> int:
    """Return a file of ``data``, open at its start: input of any size, and no writer that could block.

    It is open as long as ``stack``.
    """
    fd = os.memfd_create("tailrace")
    stack.callback(os.close, fd)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
