"""The benchmark itself still runs: every row gives a figure, with or without the peers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import JOBS
from tests.bench.figures import Row, Target, table

ROOT = Path(__file__).parent.parent.parent
JUDGED = {
    "appends": 3, "replay": 8, "first_message": 2, "fanout": 10, "many_runs": 2, "stuck": 2,
    "sealing": 2, "idle": 1, "lines": 1, "first_frame": 1, "engine": 2, "neighbours": 2,
}  # fmt: skip
NOT_OF_THE_TESTS = ("DBOS", "Redis always")  # scripts/bench alone installs these


@pytest.mark.parametrize("name", JOBS)
def test_every_row_gives_a_figure(name, tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", name, "--json", figures]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text())["rows"]
    assert sum(row["target"] is not None for row in rows) == JUDGED[name]
    for row in rows:
        assert row["ours"] > 0, row
        if row["against"] not in {None, *NOT_OF_THE_TESTS}:
            assert row["reference"] > 0, row
        assert row["job"] in done.stdout


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("a", "/s", 90, "peer", 100, Target("ratio", "least", 1)), "0.90x, not reached"),
        (Row("a", "/s", 900, "peer", 100, Target("ratio", "least", 4)), "2.2x, reached"),
        (Row("a", "ms", 30, None, None, Target("figure", "most", 15)), "0.50x, not reached"),
        (Row("a", "ms", 5, None, None, Target("figure", "most", 15)), "3.0x, reached"),
        (Row("a", "/s", 90, "peer", None, Target("ratio", "least", 1)), "nothing to compare with"),
    ],
)
def test_a_row_says_how_far_its_target_is_reached(row, said):
    assert said in table([row], judged=True)
    assert said not in table([row], judged=False)


def test_a_peer_that_is_missing_is_named():
    assert "peer not installed" in table([Row("a", "/s", 90, "peer", None)], judged=True)
