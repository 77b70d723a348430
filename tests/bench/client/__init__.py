"""The load: clients in Go that count frames as cheaply as the machine allows, and what feeds them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from msgspec import Struct, convert, json

HERE = Path(__file__).parent
CACHE = HERE.parent.parent.parent / ".cache"
TIMEOUT_S = 90.0
BUILD_TIMEOUT_S = 180.0
GO = {
    "GO111MODULE": "off",  # no network: the one library that is needed is Debian's
    "GOPATH": "/usr/share/gocode",
    "GOFLAGS": "",
    "GOCACHE": str(CACHE / "go"),
}


class Watched(Struct, frozen=True, rename="camel"):
    """What one client saw: times from sending its upgrade, ``code`` of the close frame."""

    messages: int
    bytes: int
    first_ms: float
    total_ms: float
    code: int


def built(source: Path) -> Path:
    """Return the program made from the Go files in ``source``, built anew if one of them has changed."""
    program = CACHE / "bench" / source.name
    newest = max(file.stat().st_mtime for file in source.glob("*.go"))
    if not program.exists() or program.stat().st_mtime < newest:
        assert shutil.which("go"), "the bench's client is written in Go: install golang-go"
        program.parent.mkdir(parents=True, exist_ok=True)
        build = ["go", "build", "-o", str(program), "."]
        subprocess.run(build, check=True, timeout=BUILD_TIMEOUT_S, cwd=source, env=os.environ | GO)
    return program


def ask(verb: str, **spec: object) -> Any:
    """Run the client and return what it answers."""
    command = [str(built(HERE)), verb]
    done = subprocess.run(
        command, input=json.encode(spec), capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.decode(done.stdout) if done.stdout else None


def watch(port: int, *paths: str, messages: int = 0) -> list[Watched]:
    """Open a WebSocket on each path at once and count until each is closed, or has ``messages``."""
    spec = {"protocol": "websocket", "address": f"127.0.0.1:{port}", "paths": paths, "messages": messages}
    return convert(ask("replay", **spec), list[Watched])
