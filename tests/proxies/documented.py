"""The configurations of docs/proxies as the tests run them: other ports, paths and passwords, nothing else."""

import os
import subprocess
from pathlib import Path

from tests.server import ROOT

NAME = "tailrace.example.org"
USER, PASSWORD = "alice", "correct horse"

# What conf.d/ is included by. All that nginx writes stays in its directory.
NGINX = """
{user}
pid nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include tailrace.conf;
}}
"""


def configure(kind: str, directory: Path, *, port: int, upstream: int, tls: bool, silence_s: int) -> None:
    """Write the configuration of nginx or HAProxy into ``directory``."""
    if tls:
        _certificate(directory)
    if kind == "nginx":
        (directory / "tailrace.conf").write_text(_nginx(directory, port, upstream, tls, silence_s))
        (directory / "tailrace.users").write_text(
            f"{USER}:{printed('openssl', 'passwd', '-apr1', PASSWORD)}\n"
        )
        # Where the tests are root, the usual user could not read their directories.
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(NGINX.format(user=user))
    else:
        (directory / "haproxy.cfg").write_text(_haproxy(directory, port, upstream, tls, silence_s))


def _nginx(directory: Path, port: int, upstream: int, tls: bool, silence_s: int) -> str:
    changes = {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{upstream};",
        "    listen 80;\n": "" if tls else f"    listen 127.0.0.1:{port};\n",
        "    listen [::]:80;\n": "",
        " /etc/nginx/tailrace.users;": f" {directory}/tailrace.users;",
        "proxy_read_timeout 60s;": f"proxy_read_timeout {silence_s}s;",
        "proxy_send_timeout 60s;": f"proxy_send_timeout {silence_s}s;",
    }
    if tls:
        changes |= {
            "# listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "# ssl_certificate     /etc/ssl": f"ssl_certificate {directory}",
            "# ssl_certificate_key /etc/ssl": f"ssl_certificate_key {directory}",
        }
    return _changed("nginx.conf", changes)


def _haproxy(directory: Path, port: int, upstream: int, tls: bool, silence_s: int) -> str:
    changes = {
        "server tailrace 127.0.0.1:8080\n": f"server tailrace 127.0.0.1:{upstream}\n",
        "    bind :80\n": "" if tls else f"    bind 127.0.0.1:{port}\n",
        "$5$replace$me": printed("openssl", "passwd", "-5", PASSWORD),
        "timeout client 60s": f"timeout client {silence_s}s",
        "timeout server 60s": f"timeout server {silence_s}s",
        "timeout tunnel 60s": f"timeout tunnel {silence_s}s",
    }
    if tls:
        changes |= {"# bind :443 ssl crt /etc/ssl": f"bind 127.0.0.1:{port} ssl crt {directory}"}
    return _changed("haproxy.cfg", changes)


def _changed(name: str, changes: dict[str, str]) -> str:
    text = (ROOT / "docs" / "proxies" / name).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} must be in docs/proxies/{name} once"
        text = text.replace(old, new)
    return text


def _certificate(directory: Path) -> None:
    """Write a certificate for NAME, and for where it is, that is its own authority; HAProxy wants its key in the same file."""
    certificate, key = directory / "tailrace.pem", directory / "tailrace.key"
    printed(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1",
        "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    certificate.write_text(certificate.read_text() + key.read_text())


def printed(*command: str) -> str:
    """Return what a program prints."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
