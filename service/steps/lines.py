"""Bytes to lines: decoded, split and bounded, whatever a command writes."""

LINE_BYTES_MAX = 1024 * 1024  # a longer line is passed on in pieces of this size


class LineSplitter:
    """Cuts a stream of bytes into lines of text, without their ends (LF or CRLF).

    Holds at most one unfinished line of ``LINE_BYTES_MAX`` bytes.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that ``data`` completes."""
        end = data.rfind(b"\n") + 1
        lines: list[str] = []
        if end:
            # UTF-8 never has LF inside a character, so a whole block decodes as its lines would.
            block = bytes(self._rest) + data[:end] if self._rest else data[:end]
            self._rest.clear()
            lines = _split(block)
        self._rest += data[end:]
        while len(self._rest) > LINE_BYTES_MAX:
            cut = _character_boundary(self._rest, LINE_BYTES_MAX)
            lines.append(self._rest[:cut].decode("utf-8", "replace"))
            del self._rest[:cut]
        return lines

    def end(self) -> list[str]:
        """Return the last line if no line end followed it."""
        if not self._rest:
            return []
        line = self._rest.decode("utf-8", "replace")
        self._rest.clear()
        return [line.removesuffix("\r")]


def _split(block: bytes) -> list[str]:
    lines = block.decode("utf-8", "replace").split("\n")
    lines.pop()
    if b"\r\n" in block:
        return [line.removesuffix("\r") for line in lines]
    return lines


def _character_boundary(data: bytearray, limit: int) -> int:
    """Return the last index up to ``limit`` that does not cut a UTF-8 character in two."""
    for index in range(limit, limit - 4, -1):
        if data[index] & 0xC0 != 0x80:
            return index
    return limit
