"""The JavaScript client as a file: where it is served, what is said about it, and that it is delivered."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.clients.client import ROOT
from tests.clients.javascript import SOURCE
from tests.test_architecture import FILE_LINES_MAX


def test_it_is_served_as_a_module(hosted):
    answer = hosted.get("/client.js")
    assert (answer.status, answer.body) == (200, SOURCE.read_bytes())
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "origin"
    head = hosted.request("HEAD", "/client.js")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


def test_who_has_it_is_told_so(hosted):
    first = hosted.get("/client.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}'):
        answer = hosted.get("/client.js", **{"if-none-match": known})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    for other in ('"x"', etag.strip('"'), ""):
        assert hosted.get("/client.js", **{"if-none-match": other}).status == 200


def test_it_needs_nothing_from_elsewhere():
    source = SOURCE.read_text()
    assert source.count("\n") <= FILE_LINES_MAX
    assert re.findall(r"\bimport\b(?! \{watch\})|\brequire\(|https?://(?!localhost)", source) == []
    check = subprocess.run(
        ["node", "--input-type=module", "--check"], input=source, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr
    broken = subprocess.run(
        ["node", "--input-type=module", "--check"],
        input=source + "}",
        capture_output=True,
        text=True,
        check=False,
    )
    assert broken.returncode != 0


def test_it_is_in_the_wheel(tmp_path: Path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert files.read("service/web/client.js") == SOURCE.read_bytes()
