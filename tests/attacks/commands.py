"""Commands that want to outlive their step, its cancellation, its timeout or the service, or to drown it.

Under both containments: where root may make pid namespaces, another service that has lost that right, and the
right to look into processes that do not want it, stands for one that is not root's.
"""

import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from tests.attacks.watched import MIB, Size, attacked, regrets, until
from tests.server import ROOT, Server

W = "/api/v2/workflows"
OUTPUT_BYTES_MAX = 2 * MIB
GROWN_BYTES_MAX = 64 * MIB
RUNS_PER_CYCLE = 12
GONE_S = 20.0
NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups prlimit --nproc=150"

# What a command tries. All say "ready" when what is to survive is there; each process inherits the mark.
ESCAPES = {
    "child": "sleep 600 & echo ready; wait",
    "setsid": "setsid sleep 600 & echo ready; wait",
    "double fork": "( ( setsid sleep 600 </dev/null >/dev/null 2>&1 & ) & ) ; echo ready; sleep 600",
    "holds stdout": "( setsid sleep 600 & ) ; echo ready",
    "ignores TERM": "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo ready; while :; do sleep 1; done",
    "stopped": "setsid sleep 600 & kill -STOP $!; echo ready; kill -STOP $$",
    "no output": "exec >/dev/null 2>&1 </dev/null; setsid sleep 600 & sleep 600",
    "fork bomb": f"echo ready; exec {NOBODY} sh -c 'b() {{ b | b & sleep 0.01; }}; b; wait' 2>/dev/null",
    "chain of forks": "echo ready; exec python3 -c 'import os\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid()'",
    "threads": "echo ready; exec python3 -c 'import threading, time, os\nfor _ in range(50): threading.Thread(target=lambda: (os.fork(), time.sleep(600))).start()'",
    "kills its guard": "setsid sleep 600 & echo ready; kill -9 $PPID; sleep 600",
    "stops its guard": "setsid sleep 600 & echo ready; kill -STOP $PPID; sleep 600",
    # Only where nobody else is in reach.
    "kills everybody": "echo ready; if [ $PPID = 1 ] && [ $$ -lt 10 ]; then kill -9 -1; fi; sleep 600",
    # Its guard, the guards' starter, the service: nobody else's processes are touched.
    "reads the service": "setsid sleep 600 & p=$PPID; for n in 1 2 3; do [ $p -gt 0 ] || break; cat /proc/$p/environ; for f in /proc/$p/fd/*; do echo ESCAPED-INTO-IT 2>/dev/null >>$f; done; p=$(sed -n 's/^PPid:.//p' /proc/$p/status); done >/dev/null 2>&1; echo ready; sleep 600",
    "open files": 'for n in 3 4 5 6 7 8 9; do eval "echo ESCAPED-INTO-IT >&$n" 2>/dev/null; done; setsid sleep 600 & echo ready; sleep 600',
    "own namespaces": "unshare --pid --fork --mount-proc setsid sleep 600 & unshare --mount --net --ipc --uts sleep 600 & echo ready; sleep 600",
    "other user": "setpriv --reuid 65534 --regid 65534 --clear-groups setsid sleep 600 & echo ready; sleep 600",
    "no mark left": "env -i setsid sh -c 'sleep 600; : {mark}' & echo ready; sleep 600",
    "pours": "echo ready; setsid yes & yes >&2",
    "one line": "echo ready; tr '\\0' x </dev/zero",
    "bytes": "echo ready; cat /dev/urandom",
}
IN_A_NAMESPACE = {"kills everybody", "own namespaces"}
NEEDS_ROOT = {"fork bomb", "own namespaces", "other user"}
EVERY_END = ("timeout", "cancel", "kill -9", "SIGTERM")


def why_not() -> str | None:
    """Return why this cannot be tried here, None if it can."""
    return None if which("setpriv") and which("prlimit") else "setpriv and prlimit are missing (util-linux)"


def run(count: int, seed: int) -> list[str]:
    """Run ``count`` such commands under each containment; return what survived or came through."""
    faults = list(_escapes(count, seed, "pid namespace" if os.geteuid() == 0 else "watchdog"))
    if os.geteuid() == 0:
        inside = subprocess.run(
            ["setpriv", "--bounding-set", "-sys_admin,-sys_ptrace", sys.executable, "-W", "error", "-m", "tests.attacks.commands",
             str(count), str(seed)],
            cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=3_600,
        )  # fmt: skip
        faults += json.loads(inside.stdout.splitlines()[-1])
    return faults


def pour(gigabytes: int, _seed: int) -> list[str]:
    """Let one command write so much; return what of it was too much for somebody."""
    with attacked(TAILRACE_MAX_OUTPUT_BYTES=OUTPUT_BYTES_MAX) as server:
        before = Size.of(server)
        script = f"yes 'a line of output that nobody can want so often' | head -c {gigabytes}G"
        server.create("pour", {"steps": {"pour": _shell(script)}})
        run = server.finished(server.execute("pour"), timeout_s=60.0 + 60.0 * gigabytes)
        faults = [] if run["status"] == "success" else [f"the run is {run['status']}: {run['error']}"]
        faults += _faults_of_output(server, run["runId"])
        grown = Size.of(server).rss_bytes - before.rss_bytes
        if grown > GROWN_BYTES_MAX:
            faults.append(f"the service has grown by {grown / MIB:.0f} MiB")
        if (
            f"{gigabytes * 1024**3 - OUTPUT_BYTES_MAX} bytes"
            not in _logs(server, run["runId"])[-1]["message"]
        ):
            faults.append(f"what was dropped is not told: {_logs(server, run['runId'])[-2:]}")
        return faults + regrets(server)


def _escapes(count: int, seed: int, contained: str) -> Iterator[str]:
    chance = random.Random(seed)
    names = [name for name in ESCAPES if os.geteuid() == 0 or name not in NEEDS_ROOT]
    if contained == "watchdog":
        names = [name for name in names if name not in IN_A_NAMESPACE]
    plan = [name for _ in range(-(-count // len(names))) for name in chance.sample(names, len(names))][:count]
    with attacked(
        TAILRACE_MAX_OUTPUT_BYTES=OUTPUT_BYTES_MAX, TAILRACE_MAX_PARALLEL_STEPS=RUNS_PER_CYCLE
    ) as server:
        if f'"contained_by": "{contained}"' not in server.diagnostics.read_text():
            yield f"this is not the containment that was wanted: {contained}"
            return
        for start in range(0, count, RUNS_PER_CYCLE):
            end = EVERY_END[start // RUNS_PER_CYCLE % len(EVERY_END)]
            yield from _cycle(server, plan[start : start + RUNS_PER_CYCLE], end, contained)
        yield from regrets(server)
        if "ESCAPED-INTO-IT" in server.diagnostics.read_text():
            yield f"{contained}: a command has written where it should not"


def _cycle(server: Server, names: list[str], end: str, contained: str) -> Iterator[str]:
    """Start commands, end them in one way, and look for what is left."""
    mark = f"mark-{uuid.uuid4()}"
    run_ids = {}
    for name in names:
        workflow_id = f"w-{uuid.uuid4()}"
        step = _shell(ESCAPES[name].replace("{mark}", mark), env={"ATTACK_MARK": f"{mark} {name}"})
        if end == "timeout":
            step["config"]["timeout"] = "1500ms"
        server.create(workflow_id, {"steps": {"s": step}})
        run_ids[server.execute(workflow_id)] = name
    until(lambda: all(_began(server, run_id) for run_id in run_ids), 10.0)
    assert server.process is not None
    if end == "cancel":
        for run_id in run_ids:
            server.post(f"{W}/runs/{run_id}/cancel")
    elif end == "kill -9":
        server.kill_hard()
    elif end == "SIGTERM" and (code := server.stop()) != 0:
        yield f"the service ended with {code}"
    if server.process is not None:
        for run_id in run_ids:
            server.finished(run_id)
    if not until(lambda: not survivors(mark), GONE_S):
        yield f"{contained}, {end}: survived: {survivors(mark)[:5]}"
    if server.process is None:
        server.start()
    for run_id, name in run_ids.items():
        run = server.finished(run_id)
        if run["status"] not in {"failed", "cancelled", "success"}:
            yield f"{contained}, {end}, {name}: the run is {run['status']}"
        yield from _faults_of_output(server, run_id)
    if not until(lambda: not survivors(mark), GONE_S):
        yield f"{contained}, {end}: came again: {survivors(mark)[:5]}"


def _shell(script: str, **more: object) -> dict:
    return {"type": "command", "config": {"command": "sh", "args": ["-c", script], **more}}


def _began(server: Server, run_id: str) -> bool:
    run = server.run(run_id)
    return run["status"] not in {"queued", "running"} or run["lastSeq"] >= 3


def _logs(server: Server, run_id: str) -> list[dict]:
    logs: list[dict] = []
    after = 0
    while True:
        page = server.get(f"{W}/runs/{run_id}/events?types=step_log&limit=1000&after={after}").json
        logs += [event["payload"] for event in page["data"]]
        if page["nextCursor"] is None or not page["data"]:
            return logs
        after = page["nextCursor"]


def _faults_of_output(server: Server, run_id: str) -> Iterator[str]:
    logs = [log for log in _logs(server, run_id) if log["level"] in {"info", "warn"}]
    said = sum(log.get("bytes", 0) or len(log["message"].encode()) for log in logs)
    # A byte that is no text becomes three; the service says a few lines itself.
    if said > 3 * OUTPUT_BYTES_MAX + 10_000:
        yield f"{run_id} recorded {said} bytes of output"


def survivors(mark: str) -> list[str]:
    """Return the processes that carry ``mark`` in their environment or arguments."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in words:
            found.append(f"{process.name} {words[:80]!r} {words.partition(mark.encode())[2][:40]!r}")
    return found


if __name__ == "__main__":
    print(json.dumps(list(_escapes(int(sys.argv[1]), int(sys.argv[2]), "watchdog"))), flush=True)
