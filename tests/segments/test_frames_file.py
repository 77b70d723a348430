"""What is read from the frames into memory that was used before: it never changes under who still has it."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.segments.frames_file import NOW_BYTES_MAX, ROOM_BYTES, ROOMS, SMALL_BYTES, FramesFile

SIZES = (1, SMALL_BYTES, SMALL_BYTES + 1, 213_000, ROOM_BYTES, ROOM_BYTES + 1, NOW_BYTES_MAX)


@pytest.fixture
def frames(tmp_path: Path) -> Iterator[FramesFile]:
    file = FramesFile.make(tmp_path / "frames")
    yield file
    file.close()


@pytest.mark.parametrize("seed", range(4))
def test_what_somebody_has_stays_what_it_is(frames, seed):
    chance = random.Random(seed)
    written = {}
    for _ in range(3 * ROOMS):
        data = chance.randbytes(chance.choice(SIZES))
        written[frames.append(data)] = data
    had = []
    for _ in range(400):
        at = chance.choice(list(written))
        had.append((written[at], frames.read_now(at, len(written[at]))))
        if chance.random() < 0.6:  # so that it is now a few, now more than there is memory for
            del had[chance.randrange(len(had))]
        if chance.random() < 0.05:
            had.clear()
        assert all(found == data for data, found in had)
        assert all(isinstance(found, bytes) or found.readonly for _, found in had)


def test_what_nobody_has_any_more_is_read_into_again(frames):
    size = SMALL_BYTES + 1
    at = frames.append(os.urandom(size))
    places = {id(frames.read_now(at, size).obj) for _ in range(10 * ROOMS)}
    assert len(places) == ROOMS
    had = [frames.read_now(at, size) for _ in range(ROOMS)]
    assert {id(each.obj) for each in had} == places
    assert isinstance(frames.read_now(at, size), bytes), "all of it is in use"
    gone = id(had.pop(3).obj)
    assert id(frames.read_now(at, size).obj) == gone
    had.clear()
    assert isinstance(frames.read_now(at, SMALL_BYTES), bytes), "too little to keep a room for"


def test_more_than_fits_or_is_there_is_not_had_at_once(frames):
    at = frames.append(bytes(NOW_BYTES_MAX + 1))
    assert frames.read_now(at, NOW_BYTES_MAX + 1) is None
    assert frames.read_now(at, NOW_BYTES_MAX) is not None
    assert frames.read_now(at + 2, NOW_BYTES_MAX) is None
