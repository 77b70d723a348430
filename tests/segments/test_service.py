"""The service seals what its runs leave behind; its segments can be lost at any time."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from service.segments.file import frames_path
from tests.server import Server

LINES = 5_000
PRINT = {
    "steps": {
        "print": {
            "id": "print",
            "name": "Print",
            "type": "command",
            "config": {"command": "seq", "args": [str(LINES)]},
        }
    }
}


def segments_of(path: Path) -> list[tuple[str, int, int]]:
    """Return what is sealed in the file, which the service may be writing."""
    if not path.exists():
        return []
    query = "select name, first_seq, last_seq from segments join streams on streams.id = stream order by first_seq"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # its tables are being made, or the file is not there any more


def sealed(path: Path, count: int) -> list[tuple[str, int, int]]:
    deadline = time.monotonic() + 30
    while len(found := segments_of(path)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_long_run_is_sealed_and_a_lost_file_is_made_again(tmp_path):
    path = tmp_path / "tailrace.db.segments"
    frames = frames_path(path)
    with Server(tmp_path) as server:
        server.create("print", PRINT)
        run_id = server.execute("print")
        assert server.finished(run_id)["lastSeq"] > LINES
        last = server.finished(run_id)["lastSeq"]
        expected = [(f"run/{run_id}", first, min(first + 1_023, last)) for first in range(1, last + 1, 1_024)]
        assert sealed(path, len(expected)) == expected
        for file in (path, frames):
            assert file.stat().st_mode & 0o077 == 0, "what runs say is their owner's alone"
        server.stop()
        assert not path.with_name(f"{path.name}-wal").exists()
        for lost in (path, frames):  # each is of no use without the other
            lost.unlink()
            server.start()
            assert sealed(path, len(expected)) == expected
            server.stop()
        frames.write_bytes(b"somebody else's" * 1_000)
        server.start()
        assert sealed(path, len(expected)) == expected
        server.kill_hard()
        server.start()
        assert sealed(path, len(expected)) == expected
    assert '"error"' not in server.diagnostics.read_text()
