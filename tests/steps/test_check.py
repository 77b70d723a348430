"""What a definition may not say, with its place; a template may stand for anything."""

from typing import Any

import pytest

from service.steps import Step
from service.steps.registry import close, containment, registry

STEPS: dict[str, Step] = registry(commands=frozenset({"*"}), output_bytes_max=1000)

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("http", {"url": "{{apiUrl}}", "method": "GET"}),
    ("http", {"url": "https://example.com/a?b=c#d"}),
    ("http", {"url": "https://{{host}}/a/{{x}}"}),
    ("http", {"path": "/{{x}}", "baseUrl": "https://example.com"}),
    ("http", {"path": "/posts", "baseUrl": "https://example.com/api"}),
    ("http", {"path": "{{p}}", "baseUrl": "{{base}}"}),
    ("http", {"path": "https://example.com/x"}),
    (
        "http",
        {"url": "http://[2606:4700::1111]:8080/", "timeout": "30s", "expectStatus": [200, "3xx", "404"]},
    ),
    (
        "http",
        {"url": "https://x.y", "method": "{{m}}", "headers": "{{h}}", "query": "{{q}}", "json": "{{j}}"},
    ),
    (
        "http",
        {"url": "https://x.y", "headers": {"A": "{{a}}", "B": 1, "C": None}, "query": {"a": ["{{x}}", 1]}},
    ),
    ("http", {"url": "https://x.y", "timeout": "{{t}}", "expectStatus": "{{s}}", "body": None, "json": [1]}),
    ("command", {"command": "echo", "args": ["Processing user {{userId}}"]}),
    ("command", {"cmd": "echo", "args": [1, None, {"a": 1}]}),
    ("command", {"command": ["echo", "a"], "args": ["b"]}),
    ("command", {"command": "{{c}}", "args": "{{a}}", "env": "{{e}}", "cwd": "{{d}}", "stdin": "{{s}}"}),
    ("command", {"command": ["{{c}}", "{{a}}"], "env": {"A": "{{a}}", "B": 1}, "expectExit": [0, 1, "2"]}),
    ("command", {"command": "x", "timeout": "5m", "expectExit": "{{code}}"}),
    ("wait", {"duration": 0}),
    ("wait", {"duration": "1h"}),
    ("wait", {"duration": "{{d}}"}),
]

BAD: list[tuple[str, dict[str, Any], list[str]]] = [
    ("http", {}, ["/url"]),
    ("http", {"url": "https://example.com{{x}}"}, ["/url"]),
    ("http", {"url": "https://example.com:{{port}}/a"}, ["/url"]),
    ("http", {"path": "/a", "baseUrl": "https://example.com{{x}}"}, ["/baseUrl"]),
    ("http", {"url": None}, ["/url"]),
    ("http", {"url": ""}, ["/url"]),
    ("http", {"url": 7}, ["/url"]),
    ("http", {"url": "example.com"}, ["/url"]),
    ("http", {"url": "ftp://example.com"}, ["/url"]),
    ("http", {"url": "http://"}, ["/url"]),
    ("http", {"url": "http://a b/"}, ["/url"]),
    ("http", {"url": "http://x:99999/"}, ["/url"]),
    ("http", {"url": "http://x/\r\nHost: y"}, ["/url"]),
    ("http", {"url": "https://x.y/" + "z" * 20_000}, ["/url"]),
    ("http", {"url": "https://x.y", "path": "/z"}, ["/path"]),
    ("http", {"path": "/z"}, ["/path"]),
    ("http", {"path": "/z", "baseUrl": "https://x.y?a=b"}, ["/baseUrl"]),
    ("http", {"path": "/z", "baseUrl": "file:///etc"}, ["/baseUrl", "/path"]),
    ("http", {"url": "https://x.y", "method": "BREW"}, ["/method"]),
    ("http", {"url": "https://x.y", "method": "CONNECT"}, ["/method"]),
    ("http", {"url": "https://x.y", "headers": []}, ["/headers"]),
    ("http", {"url": "https://x.y", "headers": {"a b": "c"}}, ["/headers/a b"]),
    ("http", {"url": "https://x.y", "headers": {"a/b": "c"}}, ["/headers/a~1b"]),
    ("http", {"url": "https://x.y", "headers": {"a": "b\r\nc: d"}}, ["/headers/a"]),
    ("http", {"url": "https://x.y", "headers": {"Content-Length": "0"}}, ["/headers/Content-Length"]),
    (
        "http",
        {"url": "https://x.y", "headers": {"Transfer-Encoding": "chunked"}},
        ["/headers/Transfer-Encoding"],
    ),
    ("http", {"url": "https://x.y", "headers": {"Host": "z"}}, ["/headers/Host"]),
    ("http", {"url": "https://x.y", "query": "a=b"}, ["/query"]),
    ("http", {"url": "https://x.y", "query": {"a": {"b": 1}}}, ["/query/a"]),
    ("http", {"url": "https://x.y", "json": 1, "body": "x"}, ["/body"]),
    ("http", {"url": "https://x.y", "timeout": 0}, ["/timeout"]),
    ("http", {"url": "https://x.y", "timeout": "soon"}, ["/timeout"]),
    ("http", {"url": "https://x.y", "expectStatus": 99}, ["/expectStatus"]),
    (
        "http",
        {"url": "https://x.y", "expectStatus": ["2xx", "6xx", True]},
        ["/expectStatus", "/expectStatus"],
    ),
    ("http", {"url": "https://x.y", "metod": "GET", "cookies": {}}, ["/metod", "/cookies"]),
    ("command", {}, ["/command"]),
    ("command", {"command": ""}, ["/command"]),
    ("command", {"command": []}, ["/command"]),
    ("command", {"command": [1, 2]}, ["/command"]),
    ("command", {"command": {"a": 1}}, ["/command"]),
    ("command", {"command": "a", "cmd": "b"}, ["/cmd"]),
    ("command", {"command": "a", "args": "b c"}, ["/args"]),
    ("command", {"command": "a", "args": ["b\0"]}, ["/args"]),
    ("command", {"command": "a\0b"}, ["/command"]),
    ("command", {"command": "a", "args": ["x" * 2_000_000]}, ["/args"]),
    ("command", {"command": "a", "env": ["A=b"]}, ["/env"]),
    ("command", {"command": "a", "env": {"A=B": "c", "": "d"}}, ["/env/A=B", "/env/"]),
    ("command", {"command": "a", "env": {"A": "b\0"}}, ["/env/A"]),
    ("command", {"command": "a", "cwd": ""}, ["/cwd"]),
    ("command", {"command": "a", "cwd": 7}, ["/cwd"]),
    ("command", {"command": "a", "timeout": -1}, ["/timeout"]),
    ("command", {"command": "a", "expectExit": 256}, ["/expectExit"]),
    ("command", {"command": "a", "expectExit": "2xx"}, ["/expectExit"]),
    ("command", {"command": "a", "shell": True}, ["/shell"]),
    ("wait", {}, ["/duration"]),
    ("wait", {"duration": -1}, ["/duration"]),
    ("wait", {"duration": "later"}, ["/duration"]),
    ("wait", {"duration": True}, ["/duration"]),
    ("wait", {"duration": 10**15}, ["/duration"]),
    ("wait", {"duration": 1, "seconds": 2}, ["/seconds"]),
]


@pytest.mark.parametrize(("kind", "config"), GOOD)
def test_a_good_config_has_no_fault(kind: str, config: dict[str, Any]) -> None:
    assert STEPS[kind].check(config, "/steps/a/config") == []


@pytest.mark.parametrize(("kind", "config", "places"), BAD)
def test_every_fault_has_its_place(kind: str, config: dict[str, Any], places: list[str]) -> None:
    faults = STEPS[kind].check(config, "/steps/a/config")
    assert [fault.pointer for fault in faults] == [f"/steps/a/config{place}" for place in places]
    assert all(fault.message and len(fault.message) < 300 for fault in faults)


def test_many_faults_come_at_once() -> None:
    config = {
        "url": "nowhere",
        "method": "X",
        "headers": {"a b": 1},
        "timeout": -1,
        "expectStatus": 1,
        "x": 1,
    }
    places = {fault.pointer for fault in STEPS["http"].check(config, "")}
    assert places == {"/url", "/method", "/headers/a b", "/timeout", "/expectStatus", "/x"}


def test_an_unknown_key_is_told_what_it_may_mean() -> None:
    (fault,) = STEPS["command"].check({"command": "a", "expect_exit": 1}, "")
    assert "expectExit" in fault.message


def test_what_holds_a_slot() -> None:
    assert {name: step.holds_slot for name, step in STEPS.items()} == {
        "http": True,
        "command": True,
        "wait": False,
    }
    assert [STEPS[name].repeatable({}) for name in ("wait", "command", "http")] == [True, False, True]


def test_the_operator_is_told_what_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="neither a host name"):
        registry(commands=frozenset(), http_allow=("http://x",), output_bytes_max=1)


async def test_the_registry_says_how_commands_are_contained_and_closes() -> None:
    steps = registry(commands=frozenset({"*"}), output_bytes_max=1000)
    assert containment(steps) in ("pid namespace", "watchdog")
    await close(steps)
    await close(steps)
