"""A file that appears under its name whole and on the disk, or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def partial(file: Path, *, force: bool) -> Iterator[Path]:
    """Yield the path to write at; ``file`` is there once the context has ended well, and then only.

    Until then all lies in the directory ``<file>.partial``, which is removed whatever happens; what a killed
    process left of it, the next one removes. Fails if ``file`` exists, unless ``force``.
    """
    if file.exists() and not force:
        raise FileExistsError(f"{file} exists; --force replaces it")
    place = file.with_name(f"{file.name}.partial")
    place.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process writes {file} just now") from None
        try:
            _empty(place)
            written = place / file.name
            yield written
            _flush(written)
            if force:
                written.replace(file)
            else:
                _appear(written, file)
            _flush(file.absolute().parent)
        finally:
            shutil.rmtree(place)
    finally:
        os.close(lock)


def _appear(written: Path, file: Path) -> None:
    """Give ``written`` its name unless somebody else has taken it meanwhile."""
    try:
        os.link(written, file)
    except FileExistsError:
        raise FileExistsError(f"{file} exists; --force replaces it") from None
    except OSError:  # a file system without links
        written.rename(file)


def _empty(place: Path) -> None:
    for entry in place.iterdir():
        entry.unlink()


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
