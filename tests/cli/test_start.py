"""How the command line starts: at once, because of what it does not import; and what its help promises."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.ops.settings import SETTINGS

ROOT = Path(__file__).parent.parent.parent
SLOW = (
    "litestar",
    "uvicorn",
    "aiohttp",
    "sqlite_utils",
    "msgspec",
    "websockets",
    "rich",
    "service.ops",
    "service.api",
)
LOADED = """
import json, sys
sys.argv = json.loads(sys.argv[1])
from service.cli import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


def loaded(*arguments: str) -> tuple[int, set[str]]:
    """Return the exit code, and every module that was imported."""
    env = {**os.environ, "TAILRACE_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", LOADED, json.dumps(["tailrace", *arguments])]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("verb", ["ls", "show x", "cancel x", "watch x", "history x"])
def test_a_client_verb_imports_nothing_slow(verb):
    code, modules = loaded(*verb.split())
    assert code == 4
    assert "service.client" in modules
    assert [name for name in SLOW if name in modules] == []


def test_help_imports_nothing_of_the_service():
    code, modules = loaded("--help")
    assert code == 0
    assert [name for name in SLOW if name in modules and name != "rich"] == []


def tailrace(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **env}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_serve_help_lists_every_setting():
    said = re.sub(r"[\s│]+", " ", tailrace("serve", "--help").stdout)
    for setting in SETTINGS:
        assert setting.flag in said
        assert f"{setting.help} [{setting.env}; default: {setting.default or 'none'}]" in said


@pytest.mark.parametrize("columns", ["", "40", "80", "119", "120", "200"])
def test_serve_help_cuts_no_name_in_a_pipe(columns):
    lines = tailrace("serve", "--help", COLUMNS=columns).stdout.splitlines()
    for setting in SETTINGS:
        assert [line for line in lines if re.search(rf"(^|\s){setting.flag}\s", line)], setting.flag
        whole = f"[{setting.env};"
        if columns not in {"120", "200"}:
            whole += f" default: {setting.default or 'none'}]"
        assert [line for line in lines if whole in line], setting.env


def test_serve_refuses_every_bad_setting_by_name(tmp_path):
    done = tailrace("serve", "--port", "high", TAILRACE_MAX_RUNS="0", TAILRACE_DB=str(tmp_path / "x.db"))
    assert done.returncode == 2
    assert "  TAILRACE_PORT: 'high' is refused: give a whole number from 0 to 65535" in done.stderr
    assert "  TAILRACE_MAX_RUNS: '0' is refused" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_the_exit_codes_mean():
    said = re.sub(r"\s+", " ", tailrace("--help").stdout)
    assert "Exit codes: 0 done, or the run succeeded; 1 the run failed" in said
    for code in ("2 ", "3 ", "4 ", "130 "):
        assert f"; {code}" in said


def test_version():
    assert re.search(r"\d+\.\d+", tailrace("--version").stdout)
