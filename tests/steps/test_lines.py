import random
import time

import pytest

from service.steps.lines import LINE_BYTES_MAX, LineSplitter


def split(data: bytes, cuts: list[int]) -> list[str]:
    splitter, lines, start = LineSplitter(), [], 0
    for cut in [*cuts, len(data)]:
        lines += splitter.feed(data[start:cut])
        start = cut
    return lines + splitter.end()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"10%\r20%\r\n", ["10%\r20%"]),
        (b"a\r", ["a"]),
        ("grün\n☃".encode(), ["grün", "☃"]),
        (b"\xff\xe2\x98\nb\n", ["��", "b"]),
        (b"\n\n", ["", ""]),
    ],
)
def test_lines_are_the_same_wherever_the_reads_fall(data: bytes, lines: list[str]) -> None:
    assert split(data, []) == lines
    assert split(data, list(range(1, len(data)))) == lines


def test_lines_equal_a_naive_split_under_random_cuts() -> None:
    rng = random.Random(7)
    for _ in range(500):
        data = b"".join(rng.choice([b"a", b"\n", b"\r\n", "é".encode(), b"\xff", b"xyz"]) for _ in range(60))
        expected = [line.removesuffix("\r") for line in data.decode("utf-8", "replace").split("\n")]
        if expected[-1] == "" and not data.endswith(b"\r"):
            expected.pop()
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(8)))
        assert split(data, cuts) == expected


def test_an_endless_line_comes_in_pieces_and_cuts_no_character() -> None:
    splitter = LineSplitter()
    pieces = []
    snowmen = "☃".encode() * 100_000
    for _ in range(15):
        pieces += splitter.feed(snowmen)
        assert len(splitter._rest) <= LINE_BYTES_MAX
    pieces += splitter.end()
    assert len(pieces) == 5
    assert "".join(pieces) == "☃" * 1_500_000
    assert all(len(piece.encode()) <= LINE_BYTES_MAX for piece in pieces)


def test_half_a_million_lines_a_second_are_no_effort() -> None:
    data = b"".join(b"line number %d of some output\n" % i for i in range(200_000))
    splitter, count = LineSplitter(), 0
    started = time.perf_counter()
    for at in range(0, len(data), 65_536):
        count += len(splitter.feed(data[at : at + 65_536]))
    assert count == 200_000
    assert 200_000 / (time.perf_counter() - started) > 500_000
