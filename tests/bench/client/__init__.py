"""Clients that count WebSocket frames as cheaply as the machine allows; in Go where there is Go."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from msgspec import Struct, convert

HERE = Path(__file__).parent
BINARY = HERE.parent.parent.parent / ".cache" / "bench" / "client"
TIMEOUT_S = 60.0


class Watched(Struct, frozen=True, rename="camel"):
    """What one client saw: times from sending its upgrade, ``code`` of the close frame."""

    messages: int
    bytes: int
    first_ms: float
    total_ms: float
    code: int


def language() -> str:
    """Return what the client is written in on this machine."""
    return "Go" if shutil.which("go") else "Python"


def watch(port: int, path: str, *, clients: int = 1) -> list[Watched]:
    """Open ``clients`` WebSockets at once and count until each is closed."""
    command = [*_command(), f"127.0.0.1:{port}", path, str(clients)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return convert(json.loads(done.stdout), list[Watched])


def _command() -> list[str]:
    source = HERE / "main.go"
    if language() == "Python":
        return [sys.executable, str(HERE / "counter.py")]
    if not BINARY.exists() or BINARY.stat().st_mtime < source.stat().st_mtime:
        BINARY.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "build", "-o", str(BINARY), str(source)], check=True, timeout=120)
    return [str(BINARY)]
