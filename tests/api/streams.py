"""Raw clients of the stream over HTTP."""

from tests.wire.server import PREFIX, read_head


class Body:
    """A response as it comes: its head, then its body with the chunking taken off, part by part."""

    def __init__(self, running, run_id: str, query: str = "", headers: str = "") -> None:
        self.socket = running.connect()
        path = f"{PREFIX}{run_id}/stream{query}"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        head = read_head(self.socket).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
        self.file = self.socket.makefile("rb")
        self.text = b""

    def problem(self) -> bytes:
        """Return the body of an answer with a Content-Length."""
        return self.file.read(int(self.headers["content-length"]))

    def chunk(self) -> bytes:
        size = int(self.file.readline(), 16)
        data = self.file.read(size)
        assert self.file.readline() == b"\r\n"
        return data

    def next(self, separator: bytes) -> bytes | None:
        """Return the next part, None at the end."""
        while separator not in self.text:
            chunk = self.chunk()
            if not chunk:
                assert self.text == b""
                return None
            self.text += chunk
        part, self.text = self.text.split(separator, 1)
        return part

    def all(self, separator: bytes) -> list[bytes]:
        return list(iter(lambda: self.next(separator), None))

    def close(self) -> None:
        self.file.close()
        self.socket.close()
