"""The table of promises tells what its rows came to, and a row that ought to be caught and is not, is a fault."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.torture import ROWS, Row, done_of, main, run_row, verdict_of


def row(script: Path, found: int, code: int, *, control: bool = False) -> Row:
    script.write_text(
        f"import sys\nprint('cases=' + sys.argv[1] + ' failed_flushes=7', 'faults={found}')\nsys.exit({code})\n"
    )
    return Row("row", f"{script} {{count}}", 30, "cases", 1, control)


@pytest.mark.parametrize(
    ("found", "code", "control", "verdict", "faults"),
    [(0, 0, False, "held", 0), (2, 1, False, "FAILED", 2), (0, 3, False, "FAILED", 1), (2, 1, True, "caught", 2), (0, 0, True, "FAILED", 0)],
)  # fmt: skip
def test_a_row_is_what_its_program_says(tmp_path, capsys, found, code, control, verdict, faults):
    result = run_row(row(tmp_path / "row.py", found, code, control=control), scale=0.1, seed=1)
    assert (result.verdict, result.faults, result.cases, result.unit) == (verdict, faults, 3, "cases")


@pytest.mark.parametrize(
    ("last", "done"),
    [
        ("cases=102 faults=0 whole=400", (102, "cases")),
        ("failed_flushes=7", (7, "failed flushes")),
        ("count=50 faults=0 seconds=7", (50, "ways")),
        ("15 passed, 2 skipped in 3.10s", (15, "passed")),
        ("1 failed, 14 passed in 3.10s", (1, "failed")),
        ("170000 seeds, 0 failed, 60.0 s", (170_000, "seeds")),
        ("skipped: it wants 16 MB", (0, "ways")),
        ("", (0, "ways")),
    ],
)
def test_the_table_counts_what_was_done_and_not_what_was_asked_for(last, done):
    assert done_of(Row("row", "", 8, "ways", 1), last) == done


@pytest.mark.parametrize(
    ("ended", "last", "verdict"),
    [
        (0, "skipped: no strace", "skipped"), (0, "3 skipped in 0.10s", "skipped"), (0, "1 passed, 2 skipped in 1s", "held"),
        (1, "1 failed, 2 skipped in 1s", "FAILED"), (5, "no tests ran in 0.1s", "FAILED"),
    ],
)  # fmt: skip
def test_what_was_not_done_has_not_held(ended, last, verdict):
    assert verdict_of(Row("row", "", 8, "ways", 1), ended, last) == verdict


def test_a_row_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.faults.torture.LEAST_S", 0.5)
    endless = tmp_path / "endless.py"
    endless.write_text("import time\ntime.sleep(1000)\n")
    assert run_row(Row("endless", str(endless), 1, "cases", 0), scale=1, seed=1).verdict == "NOT ENDED"


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (1, 1)])
def test_one_fault_is_enough(tmp_path, monkeypatch, capsys, code, exit_code):
    monkeypatch.setattr(sys, "argv", ["torture", "--scale", "0.1"])
    assert main([row(tmp_path / "a.py", 0, 0), row(tmp_path / "b.py", code, code)]) == exit_code
    assert capsys.readouterr().out.count("| row ") == 2


def test_every_row_is_a_program_that_can_be_asked():
    for each in ROWS:
        module = each.words.split()[1]
        if module == "pytest":
            continue
        said = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
        )
        for flag in (word for word in each.words.split() if word.startswith("--")):
            assert flag in said.stdout, (each.name, flag)
