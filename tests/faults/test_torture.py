"""The table of promises tells what its rows came to, and a row that ought to be caught and is not, is a fault."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.torture import ROWS, Row, main, run_row


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
    assert (result.verdict, result.faults, result.cases) == (verdict, faults, 3)


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
