"""The proxy that tortures clients: that it cuts as it says, loses nothing else, and lets through in the end."""

import socket
import threading
from contextlib import contextmanager

from tests.clients.torture import END, HALF, HEAD_BYTES, KINDS, RESET, CuttingProxy

TIMEOUT_S = 30.0
LINE = b"0123456789abcdef" * 4 + b"\n"
TEXT = LINE * 400
LINES_AT_ONCE = 20


@contextmanager
def sender():
    """Give the port of a server that sends TEXT, some lines in each write, to whoever has said hello."""
    listening = socket.create_server(("127.0.0.1", 0))

    def send(peer: socket.socket) -> None:
        with peer:
            try:
                assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
                for start in range(0, len(TEXT), LINES_AT_ONCE * len(LINE)):
                    peer.sendall(TEXT[start : start + LINES_AT_ONCE * len(LINE)])
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)  # until the other side has closed, too
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            peer.settimeout(TIMEOUT_S)
            send(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()


def received(port: int) -> tuple[bytes, bool]:
    """Return what one connection brings, and whether it was reset."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as peer:
        got = b""
        try:
            peer.sendall(b"hello")
            while data := peer.recv(65536):
                got += data
        except ConnectionError:
            return got, True
        return got, False


def test_each_connection_is_cut_by_turns_until_all_cuts_are_made():
    with sender() as port, CuttingProxy(port, seed=7, bytes_max=len(TEXT), cuts_max=60) as proxy:
        answers = [received(proxy.port) for _ in range(60)]
        assert proxy.cuts == 60
        assert received(proxy.port) == received(proxy.port) == (TEXT, False)
        assert proxy.cuts == 60
    assert [cut.kind for cut in proxy.made] == [*KINDS] * 20
    for (got, reset), cut in zip(answers, proxy.made, strict=True):
        assert reset == (cut.kind == RESET)
        assert TEXT.startswith(got)
        if not reset:
            assert len(got) == cut.after_bytes
    lengths = {kind: {cut.after_bytes for cut in proxy.made if cut.kind == kind} for kind in KINDS}
    assert {length % len(LINE) for length in lengths[END]} == {0}
    assert sum(length % len(LINE) > 0 for length in lengths[HALF]) > 15
    assert len(lengths[RESET]) > 15
    assert any(cut.after_bytes < HEAD_BYTES for cut in proxy.made)


def test_a_seed_gives_the_same_cuts_again():
    def places(seed: int) -> list[int]:
        with sender() as port, CuttingProxy(port, seed=seed, bytes_max=len(TEXT), cuts_max=20) as proxy:
            while proxy.cuts < 20:
                received(proxy.port)
        return [cut.after_bytes for cut in proxy.made if cut.kind != END]  # END: as the chunks happen to come

    assert places(1) == places(1) != places(2)


def test_it_ends_while_connections_are_open_and_refuses_when_nobody_is_there():
    listening = socket.create_server(("127.0.0.1", 0))
    with CuttingProxy(listening.getsockname()[1], seed=1, bytes_max=1000, cuts_max=9) as proxy:
        stuck = socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_S)
        peer, _ = listening.accept()
        listening.close()
        got, _ = received(proxy.port)
        assert got == b""
    for each in (stuck, peer):
        each.settimeout(TIMEOUT_S)
        assert each.recv(1) == b""
        each.close()
