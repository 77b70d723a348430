"""Write the histories of the present release: ``python -m tests.histories.make 0.1``; once for each release.

The real service runs workflows that have every type of step and event, and every outcome; it is killed and
started again, so that attempts are interrupted, and killed in the end, so that a run is left unfinished.
"""

import asyncio
import json
import lzma
import sys
import tempfile
import time
from pathlib import Path

from tests.histories.replayed import DB, LOG, STATES, fold, states_of
from tests.server import Server
from tests.steps.upstream import Upstream

HERE = Path(__file__).parent
SAY = r"echo one; echo zwei äöü ☃; printf 'tab\tand \033[31mred\033[0m\n'; echo wrong >&2; exit 3"
LONG = "head -c 20000 /dev/zero | tr '\\0' x; echo"


def command(*words: str, **more: object) -> dict:
    return {"type": "command", "config": {"command": words[0], "args": list(words[1:])}} | more


def definitions(url: str) -> dict[str, dict]:
    """Return workflows that between them write every type of event, with every outcome."""
    retry = {"maxAttempts": 2, "interval": "1ms"}
    return {
        "everything": {
            "name": "Everything", "variables": {"who": "world", "status": 0, "list": [1, 2.5, None, {"a": True}]},
            "onError": "continue",
            "steps": [
                {"id": "ask", "type": "http", "config": {"url": f"{url}/echo"}, "output": {"status": "status", "seen": "body.method"}},
                {"id": "sleep", "type": "wait", "config": {"duration": 1}, "dependsOn": ["ask"]},
                command("echo", "hello {{who}}", id="hello", dependsOn=["ask"], output={"said": "stdout"}),
                command("sh", "-c", SAY, id="retried", retry=retry, dependsOn=["hello"]),
                command("sleep", "5", id="slow", timeout="20ms", retry=retry),
                command("sh", "-c", LONG, id="long"),
                command("true", id="skipped", when="status == 404", dependsOn=["ask"]),
                {"id": "refused", "type": "http", "config": {"url": f"{url}/status?status=500"}},
            ],
        },
        "aborted": {"steps": [command("false", id="fails"), command("true", id="never", dependsOn=["fails"])]},
        "cancelled": {"steps": [command("sleep", "60", id="on"), command("true", id="never", dependsOn=["on"])]},
        "interrupted": {
            "onError": "continue",
            "steps": [
                command("sh", "-c", "sleep 1", id="again", onInterrupt="retry"),
                command("sh", "-c", "sleep 30", id="unknown", onInterrupt="fail"),
                {"id": "wait", "type": "wait", "config": {"duration": "1s"}},
            ],
        },
        # However long after it was made the log is opened, a run that waits twice still goes on.
        "unfinished": {"steps": [{"id": "wait", "type": "wait", "config": {"duration": "8784h"}},
                                 {"id": "again", "type": "wait", "config": {"duration": "8784h"}, "dependsOn": ["wait"]}]},  # fmt: skip
    }  # fmt: skip


def begun(server: Server, run_id: str) -> None:
    """Return once the run has begun its first attempts."""
    deadline = time.monotonic() + 20
    while server.run(run_id)["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # all of them


def run_all(server: Server, url: str) -> None:
    for name, definition in definitions(url).items():
        server.create(name, definition)
    body = {"definition": definitions(url)["aborted"] | {"description": "a second version"}}
    server.request("PUT", "/api/v2/workflows/aborted", body)
    server.finished(server.execute("everything", who="wörld", more="x"))
    server.finished(server.execute("aborted"))
    cancelled = server.execute("cancelled")
    begun(server, cancelled)
    server.post(f"/api/v2/workflows/runs/{cancelled}/cancel", {"reason": "enough"})
    server.finished(cancelled)
    interrupted = server.execute("interrupted")
    begun(server, interrupted)
    server.kill_hard()
    server.start()
    server.finished(interrupted)
    server.create("deleted", definitions(url)["aborted"])
    server.request("DELETE", "/api/v2/workflows/deleted")
    begun(server, server.execute("unfinished"))


async def make(release: str) -> None:
    directory = HERE / release
    directory.mkdir()
    upstream = Upstream()
    await upstream.start()
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Path(scratch), TAILRACE_HTTP_ALLOW="127.0.0.0/8")
        server.start()
        await asyncio.to_thread(run_all, server, upstream.url("").rstrip("/"))
        log = server.get("/api/v2/events?include=control", accept="application/x-ndjson").body
        server.kill_hard()
        from service.log.sqlite import SqliteLog

        await SqliteLog.open(server.db).close()  # one file, without its WAL
        packed = lzma.compress(server.db.read_bytes(), preset=9)
    await upstream.stop()
    (directory / LOG).write_bytes(log)
    (directory / DB).write_bytes(packed)
    states = states_of(fold(log.splitlines()))
    (directory / STATES).write_text(json.dumps(states, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"{len(states)} runs, {log.count(bytes([10]))} events, {len(packed)} bytes of database")


if __name__ == "__main__":
    asyncio.run(make(sys.argv[1]))
