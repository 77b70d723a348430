"""What a command step is given, says, and hands on."""

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest

from service.domain.events import VALUE_BYTES_MAX
from service.steps.command import Command
from service.steps.pipe import PIPE_BYTES
from tests.steps.attempts import Said, attempt
from tests.steps.conftest import OUTPUT_BYTES_MAX


def shell(script: str, **config: object) -> dict[str, object]:
    return {"command": "sh", "args": ["-c", script], **config}


async def test_every_line_is_said_and_the_whole_is_handed_on(command: Command) -> None:
    said = Said()
    outcome = await command.run(attempt(shell("echo one; echo two >&2; printf three; exit 0"), emit=said))
    assert outcome.status == "success"
    assert outcome.document == {"stdout": "one\nthree", "stderr": "two\n", "exitCode": 0}
    assert said.at("info") == ["one", "three"]
    assert said.at("warn") == ["two"]


async def test_lines_are_said_while_the_command_runs(plain: Command, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)

    class Answering(Said):
        def at_once(self, level: str, lines: list[str]) -> bool:
            if lines == ["first"]:
                asyncio.get_running_loop().run_in_executor(None, fifo.write_text, "now\n")
            return super().at_once(level, lines)

    async with asyncio.timeout(20):
        script = f"echo first; read word < {fifo}; echo $word"
        outcome = await plain.run(attempt(shell(script), emit=Answering()))
    assert outcome.document["stdout"] == "first\nnow\n"


async def test_arguments_are_never_read_by_a_shell(plain: Command) -> None:
    hostile = ["$(id)", "`id`", "; id", "| id", "a b", "", "*", "$HOME", "-n", "\n", "'", '"', "ü☃", "--x=1"]
    outcome = await plain.run(attempt({"command": "printf", "args": ["[%s]", *hostile]}))
    assert outcome.document["stdout"] == "".join(f"[{item}]" for item in hostile)


async def test_arguments_that_are_no_text_become_compact_json(plain: Command) -> None:
    config = {"cmd": ["printf", "%s|", 1, 1.5, True, None, {"a": [1, 2]}], "args": [[1, "x"], "y"]}
    outcome = await plain.run(attempt(config))
    assert outcome.document["stdout"] == '1|1.5|true|null|{"a":[1,2]}|[1,"x"]|y|'


async def test_the_environment_is_small_and_holds_no_secret_of_the_service(
    plain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_DB", "/secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    outcome = await plain.run(attempt({"command": "env", "env": {"GREETING": "hé=llo", "N": 7}}))
    env = dict(line.split("=", 1) for line in outcome.document["stdout"].splitlines())
    assert env["TAILRACE_IDEMPOTENCY_KEY"] == "run-1/step-1"
    assert (env["GREETING"], env["N"]) == ("hé=llo", "7")
    assert "PATH" in env
    assert "secret" not in outcome.document["stdout"]


async def test_input_of_any_size_and_a_directory(plain: Command, tmp_path: Path) -> None:
    text = "line ☃\n" * 100_000
    outcome = await plain.run(attempt({"command": "sha256sum", "stdin": text}))
    import hashlib

    assert outcome.document["stdout"].split()[0] == hashlib.sha256(text.encode()).hexdigest()
    outcome = await plain.run(attempt({"command": "pwd", "cwd": str(tmp_path)}))
    assert outcome.document["stdout"] == f"{tmp_path}\n"
    outcome = await plain.run(attempt({"command": "cat", "stdin": {"a": 1}}))
    assert outcome.document["a"] == 1
    outcome = await plain.run(attempt({"command": "cat"}))
    assert outcome.document["stdout"] == ""


async def test_keys_of_a_json_object_join_the_document_and_never_hide_the_named_ones(plain: Command) -> None:
    script = """echo '{"id": 7, "exitCode": "forged", "stdout": "forged", "nested": {"a": [1]}}'; exit 4"""
    outcome = await plain.run(attempt(shell(script, expectExit=[0, 4])))
    assert outcome.status == "success"
    assert (outcome.document["id"], outcome.document["nested"]) == (7, {"a": [1]})
    assert outcome.document["exitCode"] == 4
    assert outcome.document["stdout"].startswith('{"id"')


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -SEGV $$", 139), ("kill -KILL $$", 137), ("exec false", 1)]
)
async def test_another_end_than_expected_fails_with_its_document(
    command: Command, script: str, code: int
) -> None:
    outcome = await command.run(attempt(shell(f"echo said; {script}")))
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "exit_code"
    assert str(code) in outcome.error.message
    assert (outcome.document["exitCode"], outcome.document["stdout"]) == (code, "said\n")
    outcome = await command.run(attempt(shell(f"echo said; {script}", expectExit=code)))
    assert outcome.status == "success"


async def test_broken_utf8_and_nul_in_output_are_text(plain: Command) -> None:
    said = Said()
    outcome = await plain.run(attempt(shell(r"printf 'a\377b\000c\r\nlast'"), emit=said))
    assert said.at("info") == ["a�b\0c", "last"]
    msgspec.json.encode(outcome.document)


async def test_output_over_the_cap_is_drained_and_counted(command: Command) -> None:
    said = Said()
    async with asyncio.timeout(60):
        outcome = await command.run(
            attempt(shell("yes 0123456789 | head -c 30000000; echo end >&2"), emit=said)
        )
    assert outcome.status == "success"
    info = sum(len(line) + 1 for line in said.at("info"))
    assert info <= OUTPUT_BYTES_MAX + 1
    assert info > OUTPUT_BYTES_MAX - 100
    (warning,) = [line for line in said.at("warn") if "not recorded" in line]
    dropped = 30_000_000 + 4 - OUTPUT_BYTES_MAX
    assert f"{dropped} bytes" in warning
    assert max(said.calls) <= 500
    assert outcome.document["stdoutBytes"] == 30_000_000
    assert len(outcome.document["stdout"]) == 1024 * 1024


async def test_what_does_not_fit_into_an_event_is_replaced_by_its_length(plain: Command) -> None:
    outcome = await plain.run(attempt(shell("yes x | head -c 100000; echo why >&2")))
    assert len(outcome.document["stdout"]) == 100_000
    assert outcome.recorded == {"exitCode": 0, "stdoutBytes": 100_000, "stderr": "why\n"}
    outcome = await plain.run(attempt(shell("yes x | head -c 100000 >&2")))
    assert outcome.recorded == {"exitCode": 0, "stdout": "", "stderrBytes": 100_000}
    outcome = await plain.run(
        attempt({"command": "cat", "stdin": {"id": 7, "stdout": "", "pad": " " * 40_000}})
    )
    assert outcome.recorded is not None
    assert (outcome.recorded["id"], outcome.recorded["stdoutBytes"]) == (7, 40_029)
    assert "stdout" not in outcome.recorded
    assert len(msgspec.json.encode(outcome.recorded)) <= VALUE_BYTES_MAX


async def test_a_slow_reader_slows_the_command_and_loses_nothing(plain: Command, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    script = f'i=0; while [ $i -lt 400 ]; do head -c 4096 /dev/zero | tr "\\0" x; echo; i=$((i+1)); echo $i > {progress}; done'
    gate = asyncio.Event()

    class Full(Said):
        def at_once(self, level: str, lines: list[str]) -> bool:
            super().at_once(level, lines)
            return gate.is_set()

        async def room(self) -> None:
            await gate.wait()

    said = Full()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(plain.run(attempt(shell(script), emit=said)))
        seen = -1
        while True:  # until the command no longer gets on
            await asyncio.sleep(0.3)
            now = int(progress.read_text() or 0) if progress.exists() else 0
            if now == seen and now:
                break
            seen = now
        assert seen * 4097 <= PIPE_BYTES * 3
        gate.set()
    assert running.result().status == "success"
    assert len(said.at("info")) == 400


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"command": "no-such-command"}, "command_not_found"),
        ({"command": "/no/such/command"}, "command_not_found"),
        ({"command": "/etc/passwd"}, "command_not_found"),
        ({"command": "/"}, "command_not_found"),
        ({"command": "true", "cwd": "/no/such/place"}, "bad_cwd"),
        ({"command": "true", "cwd": "/etc/passwd"}, "bad_cwd"),
        ({"command": "true", "args": ["a\0b"]}, "bad_config"),
        ({"command": "true", "env": {"A": "a\0b"}}, "bad_config"),
        ({"command": "true", "args": ["x" * 300_000]}, "command_not_started"),
    ],
)
async def test_what_cannot_start_says_why(plain: Command, config: dict[str, object], code: str) -> None:
    outcome = await plain.run(attempt(config))
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.code == code
    assert (await plain.run(attempt({"command": "true"}))).status == "success"


async def test_only_allowed_commands_run(tmp_path: Path) -> None:
    echo = tmp_path / "echo"
    echo.write_text("#!/bin/sh\nbuiltin-evil\n")
    echo.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to("/bin/echo")
    command = Command(commands=frozenset({"echo", str(tmp_path / "tool")}), output_bytes_max=1000)
    try:
        for allowed in ("echo", "/bin/echo", str(link)):
            assert (await command.run(attempt({"command": allowed, "args": ["x"]}))).status == "success", (
                allowed
            )
        refused: list[dict[str, object]] = [
            {"command": "sh"},
            {"command": "/bin/sh"},
            {"command": "../../bin/sh"},
            {"command": str(echo)},
            {"command": "./echo", "cwd": str(tmp_path)},
            {"command": "echo", "env": {"PATH": str(tmp_path)}},
            {"command": "missing"},
            {"command": "echo "},
        ]
        for config in refused:
            outcome = await command.run(attempt(config))
            assert outcome.error is not None, config
            assert outcome.error.code == "command_not_allowed", config
        missing = await command.run(attempt({"command": str(tmp_path / "tool")}))
        assert missing.error is not None
        assert missing.error.code == "command_not_allowed"
    finally:
        await command.close()


async def test_nothing_runs_when_nothing_is_allowed() -> None:
    command = Command(commands=frozenset(), output_bytes_max=1000)
    outcome = await command.run(attempt({"command": "true"}))
    assert outcome.error is not None
    assert outcome.error.code == "command_not_allowed"
    await command.close()


async def test_a_hundred_commands_a_second(plain: Command) -> None:
    await plain.run(attempt({"command": "true"}))
    started = time.perf_counter()
    for _ in range(100):
        await plain.run(attempt({"command": "true"}))
    in_turn_s = time.perf_counter() - started
    started = time.perf_counter()
    outcomes = await asyncio.gather(*(plain.run(attempt({"command": "true"})) for _ in range(100)))
    at_once_s = time.perf_counter() - started
    assert {outcome.status for outcome in outcomes} == {"success"}
    assert min(in_turn_s, at_once_s) < 2.0


async def test_two_hundred_thousand_lines(plain: Command) -> None:
    said = Said()
    started = time.perf_counter()
    outcome = await plain.run(attempt({"command": "seq", "args": [200_000]}, emit=said))
    assert 200_000 / (time.perf_counter() - started) > 200_000
    assert outcome.status == "success"
    assert said.at("info") == [str(number) for number in range(1, 200_001)]
