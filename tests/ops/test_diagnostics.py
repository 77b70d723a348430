"""What the service says about itself: one line per fact, whatever the fact holds."""

import io
import json
import logging

import pytest
import structlog

from service.ops import diagnostics


@pytest.fixture
def out():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_json_with_what_was_said(out):
    diagnostics.configure("json", "info", stream=out)
    structlog.get_logger("any").info("said", path="/a\nforged", n=1)
    structlog.get_logger("any").debug("not said")
    [line] = out.getvalue().splitlines()
    said = json.loads(line)
    assert (said["message"], said["path"], said["n"], said["level"]) == ("said", "/a\nforged", 1, "info")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_can_forge_a_line_or_drive_a_terminal(out, form):
    diagnostics.configure(form, "info", stream=out)
    hostile = "a\nb\r\x1b[31mred\x07\x9b\u2028c"
    structlog.get_logger("any").info(hostile, path=hostile)
    logging.getLogger("uvicorn.error").warning("%s", hostile)
    text = out.getvalue()
    assert len(text.splitlines()) == 2
    assert not set(text) & set("\r\x1b\x07\x9b\u2028")


def test_long_values_are_cut_and_say_so(out):
    diagnostics.configure("json", "info", stream=out)
    structlog.get_logger("any").info("said", path="x" * 10_000)
    path = json.loads(out.getvalue())["path"]
    assert len(path) < 600
    assert path.endswith("(10000 characters)")


def test_an_exception_is_told_with_its_traceback(out):
    diagnostics.configure("json", "info", stream=out)
    try:
        1 / 0
    except ZeroDivisionError:
        structlog.get_logger("any").exception("broken")
    assert "ZeroDivisionError" in json.loads(out.getvalue())["exception"]


def test_the_false_error_of_a_refused_websocket_is_left_out(out):
    diagnostics.configure("json", "info", stream=out)
    library = logging.getLogger("uvicorn.error")
    library.error("ASGI callable returned without completing handshake.")
    library.error("a true one")
    library.info("Shutting down")
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == ["a true one"]
