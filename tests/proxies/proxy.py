"""nginx and HAProxy as processes in front of the service, and requests that go through them."""

import base64
import http.client
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.proxies.documented import NAME, PASSWORD, USER, configure
from tests.server import Answer

KINDS = ("nginx", "haproxy")
COMMANDS = {
    "nginx": ("-p", ".", "-c", "nginx.conf", "-g", "daemon off;"),
    "haproxy": ("-db", "-f", "haproxy.cfg"),
}
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
START_TIMEOUT_S = STOP_TIMEOUT_S = TIMEOUT_S = 60.0
PORT_ATTEMPTS = 5


class AddressInUse(Exception):
    """Somebody else was faster to take the port."""


class Proxy:
    """``with Proxy("nginx", directory, server.port) as proxy:`` listens on ``proxy.port`` of 127.0.0.1.

    ``tls``: with the lines for TLS in the place of those without. ``silence_s``: in the place of the documented
    seconds that either side may be silent.
    """

    def __init__(
        self, kind: str, directory: Path, upstream: int, *, tls: bool = False, silence_s: int = 60
    ) -> None:
        self.kind = kind
        self.directory = directory / f"{kind}-{'tls-' * tls}{silence_s}"
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._options = {"upstream": upstream, "tls": tls, "silence_s": silence_s}
        self.output = self.directory / "output.txt"

    def __enter__(self) -> Self:
        self.directory.mkdir()
        for _ in range(PORT_ATTEMPTS):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            configure(self.kind, self.directory, port=self.port, **self._options)
            if self._options["tls"]:
                self.tls = ssl.create_default_context(cafile=self.directory / "tailrace.pem")
            try:
                self.start()
            except AddressInUse:
                continue
            return self
        raise AssertionError(f"no port for {self.kind}")

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()

    # Its life

    def start(self) -> None:
        """Start it and return once it answers."""
        path = shutil.which(self.kind, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        assert path, f"{self.kind} is not there; scripts/test installs it"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [path, *COMMANDS[self.kind]],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None:
                self.process = None
                said = self.output.read_text()
                assert re.search("in use", said, re.IGNORECASE), said
                raise AddressInUse
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self.kind} does not answer: {self.output.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once: whoever is connected through it is cut off."""
        process, self.process = self.process, None
        assert process is not None
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.kind} did not end: {self.output.read_text()}") from None

    def _answers(self) -> bool:
        """Say whether it does by itself: 401, for want of a password."""
        try:
            return self.request("GET", "/health", authorization="").status == 401
        except (OSError, http.client.HTTPException):
            return False

    # Its clients

    @property
    def authority(self) -> str:
        return f"{NAME}:{self.port}"

    def connected(self) -> socket.socket:
        """Return a connection; TLS, if it is spoken here, has not begun."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def sent(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        """Return the answer to a request once it begins; the connection ends with it.

        Host and Authorization are right unless given; an empty one is left out.
        """
        headers = {"host": self.authority, "authorization": AUTHORIZATION, "connection": "close"} | headers
        connection = http.client.HTTPConnection(NAME, self.port)
        try:
            connection.sock = self.connected()
            if self.tls:
                connection.sock = self.tls.wrap_socket(connection.sock, server_hostname=NAME)
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if value:
                    connection.putheader(name.replace("_", "-"), value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            connection.sock.close()  # the response keeps the connection open until it is read or closed
        return response

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Return the whole answer to a request."""
        with self.sent(method, path, body, **headers) as response:
            return Answer(response)
