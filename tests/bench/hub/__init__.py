"""The hub that the published guide describes, and the best one of its kind: Go, gorilla, nothing stored."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct, json

from tests.bench.client import HERE as CLIENT
from tests.bench.client import built
from tests.bench.seeded import line_room

HERE = Path(__file__).parent
GORILLA = Path("/usr/share/gocode/src/github.com/gorilla/websocket")


class Hub(Struct, frozen=True):
    """A running hub, and the port of its clients."""

    pid: int
    port: int


def installed() -> bool:
    """Say whether there is what it takes to build it."""
    return bool(shutil.which("go")) and GORILLA.exists()


@contextmanager
def hub(kind: Literal["guide", "best"], control: str) -> Iterator[Hub]:
    """Run a hub that forwards what a producer of its own prints for the crowd at ``control``."""
    spec = {"control": control, "bytes": line_room("hub")}
    producer = subprocess.Popen([built(CLIENT), "produce", json.encode(spec)], stdout=subprocess.PIPE)
    process = subprocess.Popen([built(HERE), kind], stdin=producer.stdout, stdout=subprocess.PIPE, text=True)
    assert producer.stdout is not None
    assert process.stdout is not None
    producer.stdout.close()
    try:
        yield Hub(process.pid, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
        producer.terminate()
        producer.wait(30)
