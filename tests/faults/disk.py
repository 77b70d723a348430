"""A disk that loses power: what was flushed is there, what was not may be there in any part and any order."""

import random
from pathlib import Path

from tests.faults.syscalls import Create, Operation, Sync, Truncate, Unlink, Write

PIECES = (512, 512, 4_096, 64, 7)  # bytes that reach the disk together


class File:
    """``durable`` is on the disk; ``loose`` are writes and truncations that need not be.

    After a flush that failed nothing of before is known, and no later flush will make it so: only what is
    written anew. Those operations stay in ``loose``, each with whether it has been flushed since.
    """

    def __init__(self) -> None:
        self.durable = bytearray()
        self.size = 0  # as the process sees it
        self.loose: list[tuple[Write | Truncate, bool]] = []  # with: it was flushed
        self.doubtful = 0  # so many at the beginning of ``loose`` stay doubtful

    def do(self, operation: Write | Truncate) -> None:
        if isinstance(operation, Truncate):
            self.size = operation.size
        else:
            at = self.size if operation.at < 0 else operation.at
            operation = Write(operation.path, at, operation.data)
            self.size = max(self.size, at + len(operation.data))
        self.loose.append((operation, False))

    def sync(self, *, failed: bool) -> None:
        if failed:
            self.doubtful = len(self.loose)
            return
        self.loose[self.doubtful :] = [(operation, True) for operation, _ in self.loose[self.doubtful :]]
        if not self.doubtful:
            for operation, _ in self.loose:
                _apply(self.durable, operation)
            self.loose.clear()

    def after_power_loss(self, chance: random.Random) -> bytes:
        """Return what may be left of it."""
        content = bytearray(self.durable)
        batch: list[Write | Truncate] = []
        for operation, flushed in self.loose:
            if flushed:
                _apply_some(content, batch, chance)
                batch.clear()
                _apply(content, operation)
            else:
                batch.append(operation)
        _apply_some(content, batch, chance)
        return bytes(content)


class Disk:
    """One directory and its files. Names are kept in order: a later change of them never without an earlier."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, File] = {}  # as the processes see it
        self.durable_names: dict[str, File] = {}
        self.loose_names: list[tuple[str, File | None]] = []
        self.acks = 0

    def do(self, operation: Operation) -> None:
        name = operation.path.name
        match operation:
            case Create():
                if name not in self.names:
                    self._name(name, File())
            case Unlink():
                self._name(name, None)
            case Sync() if operation.path == self.directory:
                if not operation.failed:
                    self.durable_names = dict(self.names)
                    self.loose_names.clear()
            case Sync():
                self.names[name].sync(failed=operation.failed)
            case Write() | Truncate():
                self.names[name].do(operation)

    def _name(self, name: str, file: File | None) -> None:
        if file is None:
            del self.names[name]
        else:
            self.names[name] = file
        self.loose_names.append((name, file))

    def after_power_loss(self, chance: random.Random) -> dict[str, bytes]:
        """Return the files that may be left."""
        names = dict(self.durable_names)
        for name, file in self.loose_names[: chance.randint(0, len(self.loose_names))]:
            if file is None:
                del names[name]
            else:
                names[name] = file
        return {name: file.after_power_loss(chance) for name, file in names.items()}


def _apply(content: bytearray, operation: Write | Truncate) -> None:
    if isinstance(operation, Truncate):
        size = operation.size
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    end = operation.at + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[operation.at : end] = operation.data


def _apply_some(content: bytearray, batch: list[Write | Truncate], chance: random.Random) -> None:
    """Apply what the disk got to of ``batch``: none, all, some, a beginning, torn, in another order."""
    if not batch:
        return
    way = chance.choice(("none", "all", "beginning", "torn", "some", "pieces", "one lost", "one kept"))
    kept = list(batch)
    n = chance.randrange(len(batch))
    match way:
        case "none":
            kept = []
        case "beginning" | "torn":
            kept = batch[:n]
        case "some":
            share = chance.random()
            kept = [operation for operation in batch if chance.random() < share]
        case "one lost":
            del kept[n]
        case "one kept":
            kept = [batch[n]]
    if way in {"pieces", "torn"}:
        piece, share = chance.choice(PIECES), chance.random()
        broken = batch if way == "pieces" else batch[n : n + 1]
        pieces = [part for operation in broken for part in _broken(operation, piece)]
        kept = [] if way == "pieces" else kept
        kept += [part for part in pieces if chance.random() < share]
    if chance.random() < 0.5:
        chance.shuffle(kept)
    for operation in kept:
        _apply(content, operation)


def _broken(operation: Write | Truncate, piece: int) -> list[Write | Truncate]:
    if isinstance(operation, Truncate):
        return [operation]
    at, data = operation.at, operation.data
    return [Write(operation.path, at + n, data[n : n + piece]) for n in range(0, len(data), piece)]
