"""What may stand between a client and the service: a server that lies, proxies that cut, or know no upgrades."""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from service.wire.frames import text_frame

TIMEOUT_S = 30.0
_CLOSE = 0x88  # the first byte of a close frame
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Between:
    """``with …: port``: calls ``_connection(peer, head)`` for each request, in a thread of its own."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.heads: list[str] = []
        self._peers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        for peer in self._peers:
            _shut(peer)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            self._peers.append(peer)
            self._threads.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
            self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            try:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    data = peer.recv(1)
                    if not data:
                        return
                    head += data
                self.heads.append(head.decode())
                self._connection(peer, head)
            except OSError:
                pass  # the client went away

    def _connection(self, peer: socket.socket, head: bytes) -> None:
        raise NotImplementedError


class Says(NamedTuple):
    """What the liar says on one connection: texts, then a close with code and reason, or nothing more."""

    texts: tuple[str, ...] = ()
    close: tuple[int, str] | None = None
    head: bytes = b""  # instead of accepting; alone it is the whole answer


class Liar(Between):
    """A service that says on each connection, over WebSocket or SSE, the next of ``script``; the last for ever."""

    def __init__(self, *script: Says) -> None:
        super().__init__()
        self._script = script

    def _connection(self, peer: socket.socket, head: bytes) -> None:
        says = self._script[min(len(self.heads), len(self._script)) - 1]
        if key := re.search(rb"(?i)sec-websocket-key: *(\S+)", head):
            accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
            start = b"HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %b\r\n\r\n"
            peer.sendall(says.head or start % accept)
            peer.sendall(b"".join(text_frame(text.encode()) for text in says.texts))
            if says.close is not None:
                code, reason = says.close
                payload = code.to_bytes(2, "big") + reason.encode()
                peer.sendall(b"\x88" + bytes([len(payload)]) + payload)
            while (data := peer.recv(65536)) and data[0] != _CLOSE:
                pass
        else:
            start = b"HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            peer.sendall(says.head or start)
            for text in says.texts:
                type_ = json.loads(text).get("type", "")
                name = f"event: {type_}\r\n" if type_.startswith("stream.") else ""
                peer.sendall(f"{name}data: {text}\r\n\r\n".encode())
        if key or says.head or says.close is not None:
            peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


class Relay(Between):
    """A proxy in front of ``target_port``. ``said``: what has been handed on to clients."""

    def __init__(self, target_port: int) -> None:
        super().__init__()
        self.said = b""
        self._target_port = target_port

    def wait_for(self, text: bytes) -> None:
        """Return once that has been handed on to a client."""
        until(lambda: text in self.said)

    def cut(self) -> None:
        """End every connection, behind what was handed on."""
        for peer in self._peers:
            _shut(peer)

    def _connection(self, peer: socket.socket, head: bytes) -> None:
        if not _upgrades(head):
            head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nconnection: close", head)
        with socket.create_connection(("127.0.0.1", self._target_port), TIMEOUT_S) as service:
            service.sendall(head)
            listening = threading.Thread(target=_hand_on, args=(peer, service), daemon=True)
            listening.start()
            try:
                while data := service.recv(65536):
                    peer.sendall(data)
                    self.said += data
            finally:
                _shut(peer)
                listening.join()


class NoUpgrades(Relay):
    """A relay that answers a WebSocket's upgrade with 403, or never if ``silent``."""

    def __init__(self, target_port: int, *, silent: bool = False) -> None:
        super().__init__(target_port)
        self._silent = silent

    def _connection(self, peer: socket.socket, head: bytes) -> None:
        if not _upgrades(head):
            super()._connection(peer, head)
            return
        if not self._silent:
            peer.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def until(holds: Callable[[], bool]) -> None:
    """Return once that is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _upgrades(head: bytes) -> bool:
    return b"upgrade: websocket" in head.lower()


def _hand_on(peer: socket.socket, service: socket.socket) -> None:
    """Let the service have what the client says, and know when it is gone."""
    try:
        while data := peer.recv(65536):
            service.sendall(data)
    except OSError:
        pass
    _shut(service)


def _shut(peer: socket.socket) -> None:
    try:
        peer.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed


# What a stream says


def event(seq: int, run_id: str = "r", **payload: Any) -> str:
    return json.dumps({"runId": run_id, "type": "step_log", "payload": payload, "seq": seq, "timestamp": "x"})


def said(type_: str, **payload: Any) -> str:
    return json.dumps({"runId": "r", "type": f"stream.{type_}", "payload": payload})


def end(last_seq: int) -> str:
    return said("end", status="success", lastSeq=last_seq, hash="h")
