"""The program that starts commands and sees to it that nothing of them survives.

It is a process of its own and imports nothing of ours: forking it is cheap and safe, forking the service
is neither. The **starter** waits at a socket for requests. For each it forks a **guard**, which starts the
command, adopts every orphan the command leaves, and kills whatever is left when it is told to, when the
command has ended, or when its control socket closes because the service has died.

Where the kernel allows it, the guard is the first process of a new pid namespace, so its end takes
everything along. Elsewhere it is a subreaper that hunts its descendants down.

Control socket, one word per packet: ``term`` and ``kill`` come in; ``started``, ``failed <stage> <errno>``
and, once nothing is left, ``gone <wait status>`` go out.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

TERM_GRACE_S = 2.0  # from SIGTERM to SIGKILL
FAREWELL_S = 5.0  # the starter waits so long for its guards once the service is gone
LINGER_S = 0.5  # what the command left running may go on for so long after its end
HUNT_INTERVAL_S = 0.001
REQUEST_FDS = 5  # the request, stdin, stdout, stderr, the control socket

NAMESPACE, WATCHDOG, GROUP = "pid namespace", "watchdog", "process group"

_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_MS_NOSUID_NODEV_NOEXEC, _MS_REC, _MS_PRIVATE = 2 | 4 | 8, 0x4000, 0x40000
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 36, 38
_RESET_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)

_libc = ctypes.CDLL(None, use_errno=True)


def main(wanted: str) -> None:
    """Serve requests from the socket on fd 0 until it closes."""
    door = socket.socket(fileno=0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is the service's business; our end is the socket's
    bell = _child_bell()
    own_namespace = _open_namespace()
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a command must not reach what we hold through /proc/<pid>
    kind = _strongest(wanted, own_namespace)
    door.send(kind.encode())
    guards: set[int] = set()
    while True:
        ready, _, _ = select.select([door.fileno(), bell], [], [])
        if bell in ready:
            os.read(bell, 4096)
        for pid, _ in _reaped():
            guards.discard(pid)
        if kind == WATCHDOG:
            _go_on(guards)
            _kill(_adopted(guards))  # a guard was killed: what it guarded is ours now
        if door.fileno() in ready:
            fds = _request(door)
            if fds is None:
                return _see_off(guards)
            if len(fds) == REQUEST_FDS:
                guards.add(_start(kind, own_namespace, door, fds))
                guards.discard(-1)
            for fd in fds:
                os.close(fd)


def _see_off(guards: set[int]) -> None:
    """Wait for the guards, which see that the service has gone, and kill what those leave that are killed."""
    deadline = time.monotonic() + FAREWELL_S
    while _has_children() and time.monotonic() < deadline:
        for pid, _ in _reaped():
            guards.discard(pid)
        _go_on(guards)
        _kill(_adopted(guards))
        time.sleep(HUNT_INTERVAL_S)


def _request(door: socket.socket) -> list[int] | None:
    """Return the files of the next request, None when the service has gone."""
    word, fds, _, _ = socket.recv_fds(door, 16, REQUEST_FDS)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds of Python 3.11 ignores MSG_CMSG_CLOEXEC
    return fds if word else None


def _allow_files(files_max: int) -> None:
    """Let commands open so many files until they ask for more, 0: as many as the service."""
    if files_max:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, most))


def _open_namespace() -> int:
    try:
        return os.open("/proc/self/ns/pid", os.O_RDONLY)
    except OSError:
        return -1


def _strongest(wanted: str, own_namespace: int) -> str:
    """Try what the kernel allows and return the strongest containment, none above ``wanted``."""
    if wanted == NAMESPACE:
        try:
            pid = _fork_guard(NAMESPACE, own_namespace)
        except OSError:
            pid = -1
        if pid == 0:
            os._exit(0 if os.getpid() == 1 else 1)
        if pid > 0 and os.waitpid(pid, 0)[1] == 0:
            return NAMESPACE
        if own_namespace >= 0:
            _libc.setns(own_namespace, _CLONE_NEWPID)
    subreaper = _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    if wanted != GROUP and subreaper and os.access(children, os.R_OK):
        # A set-uid program could leave our reach for good; without it every descendant can be killed.
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return WATCHDOG
    return GROUP


def _start(kind: str, own_namespace: int, door: socket.socket, fds: list[int]) -> int:
    """Fork a guard for the command that ``fds`` ask for and return its pid, or say why there is none."""
    try:
        pid = _fork_guard(kind, own_namespace)
    except OSError as error:
        with socket.socket(fileno=os.dup(fds[-1])) as control:
            _tell(control, f"failed contain {error.errno}")
        return -1
    if pid == 0:
        door.close()
        _guard(kind, *fds)
    return pid


def _fork_guard(kind: str, own_namespace: int) -> int:
    """Fork, into a new pid namespace if ``kind`` says so. Raises OSError."""
    if kind == NAMESPACE:
        _unshare_pids(own_namespace)
    return os.fork()


def _unshare_pids(own_namespace: int) -> None:
    # A process may make one pid namespace for its children, unless it turns back to its own first.
    if _libc.setns(own_namespace, _CLONE_NEWPID) != 0 or _libc.unshare(_CLONE_NEWPID) != 0:
        raise OSError(ctypes.get_errno(), "no pid namespace")


def _guard(kind: str, request_fd: int, stdin: int, stdout: int, stderr: int, control_fd: int) -> NoReturn:
    """Run one command to its end and leave, with nothing of it left."""
    control = socket.socket(fileno=control_fd)
    os.dup2(1, 2)  # nowhere: a command of root's could write into the diagnostics through /proc/<our pid>/fd
    try:
        bell = _child_bell()
        if kind == NAMESPACE:
            _show_own_processes()
        elif kind == WATCHDOG:
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with os.fdopen(request_fd, "rb") as file:
            request = json.load(file)
        report, report_end = _pair()
        command = os.fork()
        if command == 0:
            _become(request, (stdin, stdout, stderr), report_end)
        for fd in (stdin, stdout, stderr, report_end):
            os.close(fd)
        failure = os.read(report, 64)
        if failure:
            _tell(control, f"failed {failure.decode()}")
        else:
            _tell(control, "started")
            status = _watch(command, control, bell, _killer(kind, command))
            _tell(control, f"gone {status}")
    except OSError as error:
        _tell(control, f"failed start {error.errno}")
    finally:
        os._exit(0)


def _become(request: dict, stdio: tuple[int, int, int], report: int) -> NoReturn:  # type: ignore[type-arg]
    """Turn into the command; what stops that goes to ``report`` as stage and errno."""
    stage = "start"
    try:
        os.setsid()
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        signal.set_wakeup_fd(-1)
        for number in _RESET_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if request["cwd"] is not None:
            stage = "cwd"
            os.chdir(request["cwd"])
        stage = "exec"
        os.execve(request["path"], request["argv"], request["env"])  # noqa: S606  no shell is the point
    except OSError as error:
        os.write(report, f"{stage} {error.errno}".encode())
    finally:
        os._exit(127)


def _watch(command: int, control: socket.socket, bell: int, kill: Callable[[], None]) -> int:
    """Return the command's wait status once neither it nor anything it started is left."""
    status = -1
    deadline = float("inf")
    waited = [control.fileno(), bell]
    while True:
        for pid, pid_status in _reaped():
            if pid == command:
                status = pid_status
                deadline = min(deadline, time.monotonic() + LINGER_S)
        if status >= 0 and not _has_children():
            return status
        now = time.monotonic()
        if now >= deadline:
            return _exterminate(command, status, kill)
        ready, _, _ = select.select(waited, [], [], None if deadline == float("inf") else deadline - now)
        if bell in ready:
            os.read(bell, 4096)
        if control.fileno() in ready:
            word = _heard(control)
            if word == b"term":
                _signal_group(command, signal.SIGTERM)
                deadline = min(deadline, now + TERM_GRACE_S)
            else:  # "kill", or the service is gone
                deadline = now
                waited = [bell]


def _exterminate(command: int, status: int, kill: Callable[[], None]) -> int:
    """Kill until no child is left: orphans come to us, so none of the tree is left then either."""
    while True:
        kill()
        for pid, pid_status in _reaped():
            if pid == command:
                status = pid_status
        if not _has_children():
            return status
        time.sleep(HUNT_INTERVAL_S)


def _killer(kind: str, command: int) -> Callable[[], None]:
    if kind == NAMESPACE:
        return lambda: _signal(-1, signal.SIGKILL)  # everything in the namespace but ourselves
    if kind == WATCHDOG:
        return lambda: _kill(_descendants(os.getpid()))
    return lambda: _signal_group(command, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    """Yield the processes below ``pid``, parents first."""
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    """Return the children of every thread of ``pid``; they may be gone by now, or not be all of them."""
    found: list[int] = []
    try:
        threads = [thread.name for thread in os.scandir(f"/proc/{pid}/task")]
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123  on the way of a hunt
                found += [int(child) for child in file.read().split()]
        except OSError:
            continue
    return found


def _adopted(guards: set[int]) -> Iterator[int]:
    for child in _children(os.getpid()):
        if child not in guards:
            yield child
            yield from _descendants(child)


def _kill(pids: Iterator[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _reaped() -> Iterator[tuple[int, int]]:
    """Yield pid and wait status of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _go_on(guards: set[int]) -> None:
    """Let guards go on that a command of the same user has stopped."""
    for pid in guards:
        try:
            stopped = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            continue
        if stopped is not None:
            _signal(pid, signal.SIGCONT)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _child_bell() -> int:
    """Return a file that becomes readable when a child has ended."""
    reading, writing = _pair()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _pair() -> tuple[int, int]:
    """Return two connected ends. A pipe's could be opened by root's command, through /proc/<our pid>/fd."""
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def _show_own_processes() -> None:
    """Give the namespace its own /proc, where that is allowed: ``$$`` and /proc/<pid> then agree."""
    # Private first: a mount that went through to the service's own tree would stay there.
    if (
        _libc.unshare(_CLONE_NEWNS) == 0
        and _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
    ):
        _libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC, None)


def _heard(control: socket.socket) -> bytes:
    try:
        return control.recv(16)
    except OSError:
        return b""


def _tell(control: socket.socket, word: str) -> None:
    try:
        control.send(word.encode())
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise


if __name__ == "__main__":
    _allow_files(int(sys.argv[2]))
    main(sys.argv[1])
