"""The image, and the composition with nginx: rules of our own, and proof that each would catch its breach."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml

from service.ops.machine import OTHER_FILES
from service.ops.settings import Settings, unknown_names
from service.server import GRACE_S
from tests.proxies.documented import NAME
from tests.proxies.proxy import Proxy
from tests.server import ROOT, Server

DEPLOY = ROOT / "docs/deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
IGNORED = (DEPLOY / "Dockerfile.dockerignore").read_text()
DEFAULTS = Settings()

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile, each on one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


def values(found: list[Instruction], name: str) -> list[str]:
    return [value for instruction, value in found if instruction == name]


def last_stage(found: list[Instruction]) -> list[Instruction]:
    start = max(n for n, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def variables(found: list[Instruction]) -> dict[str, str]:
    return dict(each.split("=", 1) for value in values(found, "ENV") for each in shlex.split(value))


def passes_ignore(path: str) -> bool:
    """Say whether a file goes to the builder: the last line that fits decides."""
    passes = True
    for line in IGNORED.splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parents = [path, *map(str, Path(path).parents)]
            fits = any(fnmatch.fnmatch(each, pattern.replace("**/", "*")) for each in parents if each != ".")
            passes = line.startswith("!") if fits else passes
    return passes


# Rules of the image: what is wrong with it


def faults(text: str) -> list[str]:  # noqa: C901
    found = instructions(text)
    last = last_stage(found)
    said = []
    for image in values(found, "FROM"):
        name, _, tag = image.split()[0].partition(":")
        if not re.search(r"\d+\.\d+", tag):
            said.append(f"{name} has no version")
    if not re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", (values(last, "USER") or [""])[-1]):
        said.append("it runs as root, or as a user that Kubernetes cannot check")
    after_user = (
        [name for name, _ in last[[name for name, _ in last].index("USER") :]] if values(last, "USER") else []
    )
    if {"RUN", "COPY", "ADD"} & set(after_user):
        said.append("its user may change the program")
    for name in ("ENTRYPOINT", "CMD"):
        if not all(value.startswith("[") for value in values(last, name)) or not values(last, name):
            said.append(f"{name} is a shell, which would not hand SIGTERM on")
    health = (values(last, "HEALTHCHECK") or [""])[0]
    if '"health"' not in health or "CMD [" not in health:
        said.append("nobody looks at its health")
    if values(last, "STOPSIGNAL") != ["SIGTERM"]:
        said.append("it is not asked to drain")
    if values(found, "ADD"):
        said.append("ADD unpacks and downloads")
    for value in values(found, "RUN"):
        if "pip install" in value and "--no-cache-dir" not in value:
            said.append("it keeps what pip downloaded")
        if re.search(r"pip install(?!.*(--require-hashes|--no-deps))", value):
            said.append("it installs what nobody has hashed")
    if re.search(r"(TOKEN|PASSWORD|SECRET|_KEY)\S*=", " ".join(values(found, "ENV") + values(found, "ARG"))):
        said.append("it holds a secret")
    environ = variables(last)
    said += [f"{name} is no setting" for name, _ in unknown_names(environ)]
    if str(Path(environ.get("TAILRACE_DB", "")).parent) not in values(last, "VOLUME"):
        said.append("the log is not on a volume")
    if values(last, "EXPOSE") != [str(DEFAULTS.port)]:
        said.append("it exposes another port")
    if "TAILRACE_HOST" in environ:
        said.append("it listens outside loopback without being told to")
    return said


def test_the_image_keeps_the_rules():
    assert faults(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FROM python:3.11-slim-trixie\n", "FROM python:latest\n"),
        ("USER 10001:10001\n", ""),
        ("USER 10001:10001", "USER root"),
        ("USER 10001:10001\n", "USER 10001:10001\nRUN true\n"),
        ('ENTRYPOINT ["tailrace"]', "ENTRYPOINT tailrace"),
        ('CMD ["serve"]', "CMD serve"),
        ("STOPSIGNAL SIGTERM\n", ""),
        (', "health"]', ', "doctor"]'),
        ("COPY pyproject.toml", "ADD pyproject.toml"),
        ("--no-cache-dir ", ""),
        ("--require-hashes ", ""),
        ("ENV PATH", "ENV API_TOKEN=1 PATH"),
        ("TAILRACE_DIAGNOSTICS=", "TAILRACE_DIAGNOSTIC="),
        ("VOLUME /var/lib/tailrace", "VOLUME /data"),
        ("EXPOSE 8080", "EXPOSE 80"),
        ("    TAILRACE_DB=", "    TAILRACE_HOST=0.0.0.0 TAILRACE_DB="),
    ],
)
def test_a_rule_catches(old, new):
    assert old in DOCKERFILE
    assert faults(DOCKERFILE.replace(old, new))


def test_hadolint_agrees():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_all_that_is_copied_is_there_and_nothing_else_is_sent():
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for value in values(instructions(DOCKERFILE), "COPY"):
        *sources, _ = [word for word in value.split() if not word.startswith("--")]
        for source in sources if "--from" not in value else ():
            below = [path for path in tracked if path == source or path.startswith(f"{source}/")]
            assert below, f"{source} is not there"
            assert [path for path in below if path.endswith((".py", ".js")) and not passes_ignore(path)] == []
    for path in ("tailrace.db", ".git/config", ".venv/bin/python", "docs/deploy/tailrace.env", "tests/server.py", "service/x/__pycache__/y.pyc"):  # fmt: skip
        assert not passes_ignore(path), f"{path} goes into the build"


@pytest.mark.parametrize("kind", ["plain", "tls", "another address"])
def test_its_health_is_looked_at_as_it_says(tmp_path, kind):
    """Its health check has the container's environment, and so the settings of its service."""
    health = values(instructions(DOCKERFILE), "HEALTHCHECK")[0]
    tailrace, *arguments = json.loads(health.partition("CMD ")[2])
    assert tailrace == "tailrace"
    given = {"TAILRACE_PORT": str(free_port()), "TAILRACE_DB": str(tmp_path / "t.db")}
    if kind == "tls":
        made = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=tail.example -days 2"
        )
        files = [tmp_path / "key.pem", tmp_path / "cert.pem"]
        command = ["openssl", *made.split(), "-keyout", files[0], "-out", files[1]]
        subprocess.run(command, check=True, capture_output=True)
        given |= {"TAILRACE_TLS_KEY": str(files[0]), "TAILRACE_TLS_CERT": str(files[1])}
    if kind == "another address":
        given |= {"TAILRACE_HOST": "127.0.0.2"}
    environ = os.environ | given | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "service", *arguments]
    serving = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"], env=environ, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert "listens" in serving.stdout.readline()
        checked = subprocess.run(command, env=environ, timeout=30, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        os.kill(serving.pid, signal.SIGSTOP)
        checked = subprocess.run(command, env=environ, timeout=30, capture_output=True, text=True)
        assert (checked.returncode, "timed out" in checked.stderr) == (1, True), "it hangs"
        os.kill(serving.pid, signal.SIGCONT)
    finally:
        serving.terminate()
        serving.communicate(timeout=60)
    assert subprocess.run(command, env=environ, timeout=30, stderr=subprocess.DEVNULL).returncode == 1


def test_where_no_daemon_answers_the_image_is_not_called_built(tmp_path):
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")  # there, without its daemon
    (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash"), ROOT / "scripts/image"], env={"PATH": str(tmp_path)}, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing was built" in done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_nginx_in_front_of_it_takes_as_many_streams_as_the_service(tmp_path):
    composed = yaml.safe_load(COMPOSE)
    main = composed["configs"]["nginx"]["content"]
    connections = int(re.search(r"worker_connections (\d+);", main)[1])
    files = int(re.search(r"worker_rlimit_nofile (\d+);", main)[1])
    assert (
        2 * DEFAULTS.max_watchers < connections < files <= composed["services"]["nginx"]["ulimits"]["nofile"]
    )
    assert {"source": "nginx", "target": "/etc/nginx/nginx.conf"} in composed["services"]["nginx"]["configs"]
    with Server(tmp_path, TAILRACE_HOSTS=NAME) as server, Composed("nginx", tmp_path, server.port) as proxy:
        assert proxy.request("GET", "/health").status == 200


class Composed(Proxy):
    """nginx with the main file of the composition, in the place of the one that the tests of proxies have."""

    def start(self) -> None:
        main = yaml.safe_load(COMPOSE)["configs"]["nginx"]["content"]
        changes = {
            "/run/nginx.pid": "nginx.pid",
            "/etc/nginx/conf.d/*.conf": "tailrace.conf",
            "access_log /dev/stdout": "access_log off",
            "/dev/stderr": "stderr",
        }
        for old, new in changes.items():
            assert main.count(old) == 1, old
            main = main.replace(old, new)
        path = self.directory / "nginx.conf"
        # Where the tests are root, the usual user could not read their directories.
        path.write_text(("user root;\n" if os.geteuid() == 0 else "") + main)
        super().start()


def pins(path: Path) -> dict[str, str]:
    blocks = path.read_text().replace("\\\n", " ").splitlines()
    return {re.match(r"[\w.-]+", block)[0].lower(): " ".join(block.split()) for block in blocks if block}


def test_its_lock_is_a_part_of_ours_and_all_that_it_needs():
    ours, its = pins(ROOT / "requirements.lock"), pins(DEPLOY / "requirements.lock")
    assert [name for name, block in its.items() if ours.get(name) != block] == []
    assert not {"pytest", "playwright", "ruff", "mypy"} & set(its)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed, seen = (
        names_of([*project["project"]["dependencies"], *project["build-system"]["requires"]]),
        set(),
    )
    while needed:
        name = needed.pop()
        if name not in seen:
            seen.add(name)
            needed += needs(name)
    assert len(seen) > 30
    assert seen - set(its) == set()


def needs(name: str) -> list[str]:
    """Return what a package needs on this system, none for one that is not installed here."""
    try:
        return names_of(requires(name) or ())
    except PackageNotFoundError:
        return []


def names_of(wanted: Iterable[str]) -> list[str]:
    here = [each for each in wanted if not re.search(r"extra ==|sys_platform|python_version <", each)]
    return [re.match(r"[\w.-]+", each)[0].lower().replace("_", "-") for each in here]


# The composition


def faults_of_composition(text: str) -> list[str]:
    document = yaml.safe_load(text)
    ours = document["services"]["tailrace"]
    said = [
        f"{name}: {what}"
        for name, service in document["services"].items()
        for what, right in (
            ("no-new-privileges", "no-new-privileges:true" in service.get("security_opt", ())),
            ("cap_drop", service.get("cap_drop") == ["ALL"]),
            ("read_only", service.get("read_only") is True),
            ("privileged", not service.get("privileged") and "pid" not in service),
            ("restart", service.get("restart") == "unless-stopped"),
        )
        if not right
    ]
    if "ports" in ours or ours.get("network_mode") != "service:nginx" or "cap_add" in ours:
        said.append("the service can be reached past nginx, or has rights")
    if not ours.get("init"):
        said.append("nobody takes orphans in")
    if float(ours.get("stop_grace_period", "10s").rstrip("s")) <= DEFAULTS.drain_timeout_s + GRACE_S:
        said.append("it is killed while it drains")
    if ours.get("ulimits", {}).get("nofile", 0) < DEFAULTS.max_watchers + OTHER_FILES:
        said.append("watchers find no open file")
    if [each.partition(":")[2] for each in ours["volumes"]] != values(instructions(DOCKERFILE), "VOLUME"):
        said.append("the log is not on its volume")
    if list(unknown_names(ours.get("environment", {}))):
        said.append("it sets what is no setting")
    return said


def test_the_composition_keeps_the_rules():
    assert faults_of_composition(COMPOSE) == []
    built = yaml.safe_load(COMPOSE)["services"]["tailrace"]["build"]
    assert (DEPLOY / built["context"]).resolve() == ROOT
    assert (DEPLOY / built["context"] / built["dockerfile"]).is_file()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    cap_drop: [ALL]\n", ""),
        ("      - no-new-privileges:true\n", "      - seccomp:unconfined\n"),
        ("    read_only: true\n", ""),
        ("    init: true\n", ""),
        ("network_mode: service:nginx", "network_mode: host"),
        ("stop_grace_period: 60s", "stop_grace_period: 30s"),
        ("nofile: 20000", "nofile: 1024"),
        ("log:/var/lib/tailrace", "log:/data"),
        ("    env_file:", "    environment:\n      TAILRACE_BEHIND: 127.0.0.1\n    env_file:"),
        ("    image: tailrace\n", "    image: tailrace\n    privileged: true\n"),
    ],
)
def test_a_rule_of_the_composition_catches(old, new):
    assert old in COMPOSE
    assert faults_of_composition(COMPOSE.replace(old, new))


def test_nginx_finds_the_service_where_it_listens():
    """They share a network, so the configuration that the tests of proxies run holds here as it is."""
    assert f"server 127.0.0.1:{DEFAULTS.port};" in (ROOT / "docs/proxies/nginx.conf").read_text()
    mounts = yaml.safe_load(COMPOSE)["services"]["nginx"]["volumes"]
    for path in re.findall(
        r"(/etc/(?:nginx|ssl)/tailrace\.\w+)", (ROOT / "docs/proxies/nginx.conf").read_text()
    ):
        assert any(f":{path}:ro" in mount for mount in mounts), path
