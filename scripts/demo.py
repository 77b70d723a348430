"""The demonstration behind ``scripts/demo``: real service, real command line, a local upstream."""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from upstream import Upstream

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "tests/clients/guide.md"
PUBLIC = "https://jsonplaceholder.typicode.com/posts/1"
TAILRACE = [sys.executable, "-m", "service"]
STOP_TIMEOUT_S = 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the service up afterwards")
    parser.add_argument("--port", type=int, default=0, help="of the service; by default a free one")
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tailrace-demo-")))
        upstream = stack.enter_context(Upstream())
        url = stack.enter_context(service(directory, given.port))
        say(f"The service listens on {url}; its database is empty. The upstream is {upstream.url}")
        os.environ["TAILRACE_URL"] = url
        same = show(directory, upstream)
        if given.keep:
            linger(url)
    return 0 if same else 1


@contextmanager
def service(directory: Path, port: int) -> Iterator[str]:
    """Run a service on an empty database and give its address."""
    settings = {"TAILRACE_DB": str(directory / "tailrace.db"), "TAILRACE_HTTP_ALLOW": "127.0.0.1"}
    with (directory / "diagnostics").open("w") as diagnostics:
        process = subprocess.Popen(
            [*TAILRACE, "serve", "--port", str(port)],
            env={**os.environ, **settings}, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=diagnostics,
            start_new_session=True,  # so that Ctrl-C reaches us first
        )  # fmt: skip
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http" not in line:
            sys.exit((directory / "diagnostics").read_text())
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def show(directory: Path, upstream: Upstream) -> bool:
    """Run the guide's workflow, watch it live and again late; say whether both got the same bytes."""
    workflow = directory / "workflow.json"
    workflow.write_text(guide_workflow().replace(PUBLIC, upstream.url))
    upstream.open.clear()  # the run waits for its upstream until someone watches
    run_id = tailrace("run", str(workflow), "--var", f"apiUrl={upstream.url}").decode().strip()

    say(f"Created and executed the guide's workflow. Watching run {run_id} live:")
    with subprocess.Popen(
        [*TAILRACE, "watch", run_id, "-o", "json"], cwd=ROOT, stdout=subprocess.PIPE
    ) as watch:
        assert watch.stdout is not None
        live = [watch.stdout.readline() for _ in range(2)]
        print_lines(live)
        upstream.open.set()
        for line in watch.stdout:
            print_lines([line])
            live.append(line)
    say("The run is over. A late joiner, the same run in words:")
    sys.stdout.flush()
    subprocess.run([*TAILRACE, "watch", run_id], cwd=ROOT, check=True, stderr=subprocess.STDOUT)
    late = tailrace("watch", run_id, "-o", "json").splitlines(keepends=True)

    same = sum(one == other for one, other in zip(live, late, strict=False))
    say(f"live  {digest(live)}  {len(live)} events")
    print(f"late  {digest(late)}  {len(late)} events")
    print(f"{same} of {len(live)} events are the same bytes")
    return live == late and watch.returncode == 0 and len(live) > 0


def guide_workflow() -> str:
    """Return the body that the guide sends to create its workflow."""
    found = re.search(r"/workflows \\\n.*?-d '(\{.*?\n  \})'", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    json.loads(found[1])
    return found[1]


def tailrace(*arguments: str) -> bytes:
    return subprocess.run([*TAILRACE, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def digest(lines: list[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def print_lines(lines: list[bytes]) -> None:
    for line in lines:
        print(line.decode(), end="", flush=True)


def linger(url: str) -> None:
    """Stay until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # first: who has read the addresses may end it
    try:
        say("The service stays up; Ctrl-C ends it.")
        print(f"  {url}/api/v2/workflows/runs   the runs\n  {url}/schema   the API")
        print(f"  export TAILRACE_URL={url}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
