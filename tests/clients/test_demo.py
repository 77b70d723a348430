"""scripts/demo as a newcomer runs it."""

import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_live_and_late_are_the_same_bytes():
    done = subprocess.run([ROOT / "scripts/demo"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    live, late = re.findall(r"^(?:live|late)  ([0-9a-f]{64})  10 events$", done.stdout, re.MULTILINE)
    assert live == late
    assert done.stdout.endswith("10 of 10 events are the same bytes\n")


def test_keep_leaves_the_service_up_until_it_is_ended():
    with subprocess.Popen(
        [ROOT / "scripts/demo", "--keep"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        try:
            lines = iter(demo.stdout.readline, "")
            address = next(line.split()[0] for line in lines if line.startswith("  http"))
            assert b'"success"' in urllib.request.urlopen(address, timeout=10).read()
            demo.send_signal(signal.SIGTERM)
            assert demo.wait(60) == 0
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
