"""One process per database, for as long as it lives."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.log.lock import LogInUse, hold

HOLDER = """
import sys, time
from pathlib import Path
from service.log.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "tailrace.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LogInUse, match=f"in use by process {holder.pid}$") as refused, hold(path):
            pass
        assert (refused.value.pid, refused.value.path) == (holder.pid, path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with hold(path):  # a killed holder leaves nothing that has to be removed by hand
        assert Path(f"{path}.lock").read_text().split() == [str(os.getpid())]


def test_the_lock_ends_with_its_context(tmp_path: Path) -> None:
    path = tmp_path / "tailrace.db"
    for _ in range(2):
        with hold(path), pytest.raises(LogInUse), hold(path):
            pass
    with pytest.raises(ZeroDivisionError), hold(path):
        raise ZeroDivisionError
    with hold(path):
        pass
    assert stat.S_IMODE(Path(f"{path}.lock").stat().st_mode) == 0o600
