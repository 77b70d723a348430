"""The same client in Python, for machines without Go: ``counter.py HOST:PORT PATH CLIENTS``."""

import json
import socket
import sys
import threading
import time

BUFFER_BYTES = 1 << 20


def read(connection: socket.socket, path: str, start: threading.Barrier) -> dict[str, float]:
    """Count the frames of one connection until its close frame."""
    host, port = connection.getpeername()
    start.wait()
    began = time.perf_counter()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(BUFFER_BYTES)
    assert data.startswith(b"HTTP/1.1 101"), data
    at = data.index(b"\r\n\r\n") + 4
    messages = size_sum = 0
    first_ms = 0.0
    while True:
        end = len(data)
        while end - at >= 10 or (end - at >= 2 and data[at + 1] < 126):
            size, head = data[at + 1], 2
            if size == 126:
                size, head = data[at + 2] << 8 | data[at + 3], 4
            elif size == 127:
                size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            if data[at] == 0x81:
                if not messages:
                    first_ms = (time.perf_counter() - began) * 1000
                messages += 1
                size_sum += size
            elif data[at] == 0x88 and end - at >= 4:
                total_ms = (time.perf_counter() - began) * 1000
                code = int.from_bytes(data[at + 2 : at + 4], "big")
                return {
                    "messages": messages,
                    "bytes": size_sum,
                    "firstMs": first_ms,
                    "totalMs": total_ms,
                    "code": code,
                }
            elif data[at] == 0x88:
                break
            at += head + size
        kept = data[at:]
        at = max(0, at - end)
        chunk = connection.recv(BUFFER_BYTES)
        assert chunk, "the connection ended without a close frame"
        data = kept + chunk


def main(address: str, path: str, clients: str) -> None:
    host, _, port = address.rpartition(":")
    results: list[dict[str, float]] = [{}] * int(clients)
    start = threading.Barrier(int(clients))

    def run(index: int) -> None:
        with socket.create_connection((host, int(port))) as connection:
            results[index] = read(connection, path, start)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
