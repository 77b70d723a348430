"""What the text of a setting means: each parser returns the value, or a ValueError says what is right."""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path

SECRET_PREFIX = "TAILRACE_SECRET_"  # noqa: S105  the prefix of a variable's name, not a secret

_HOST = r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?"
_AUTHORITY = r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
# What steps/addresses.py takes as a name: none ends with a digit, as an address in another spelling does.
_REACHABLE = r"([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*[A-Za-z_-]\.?"
_ORIGIN = rf"[a-zA-Z][a-zA-Z0-9+.-]*://{_AUTHORITY}|null"


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of a whole number within bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return int(text)

    return parse


def seconds(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of seconds within bounds."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not least <= float(text) <= most:
            raise ValueError(f"give seconds from {least:g} to {most:g}")
        return float(text)

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser of one of ``words``."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"give one of {', '.join(words)}")
        return text

    return parse


def listed(pattern: str, right: str) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of items, separated by commas, that each match ``pattern``."""

    def parse(text: str) -> tuple[str, ...]:
        items = tuple(item.strip() for item in text.split(",") if item.strip())
        for item in items:
            if not re.fullmatch(pattern, item):
                raise ValueError(f"{item!r} is not {right}")
        return items

    return parse


def host(text: str) -> str:
    """Return an address or a name to listen on."""
    if not re.fullmatch(_HOST, text):
        raise ValueError("give an address or a host name, such as 127.0.0.1, ::1 or 0.0.0.0")
    return text.strip("[]").lower()


def log_file(text: str) -> Path:
    """Return the path of a log, which need not be there; where links are on the way, its real one.

    Whatever lies beside a log lies beside its real name: SQLite's own files do.
    """
    if not text or "\0" in text:
        raise ValueError("give the path of a file")
    path, real = Path(text), Path(os.path.realpath(text))
    return path if path.absolute() == real else real


def origins(text: str) -> tuple[str, ...]:
    """Return web origins."""
    return tuple(item.lower() for item in listed(_ORIGIN, "an origin such as https://example.org")(text))


def hosts(text: str) -> tuple[str, ...]:
    """Return Host names."""
    return tuple(
        item.lower() for item in listed(_AUTHORITY, "a host such as example.org or [::1]:8080")(text)
    )


def reachable(text: str) -> tuple[str, ...]:
    """Return hosts, addresses and networks."""
    items = listed(r"\S+", "a single word")(text)
    for item in items:
        try:
            ipaddress.ip_network(item.strip("[]"))
        except ValueError:
            if "/" in item:
                raise  # it says what is wrong
            if not re.fullmatch(_REACHABLE, item):
                right = "a host's name (ASCII, no port, no *), an address, or a network such as 10.0.0.0/8"
                raise ValueError(f"{item!r} is not {right}") from None
    return items


def env_names(text: str) -> tuple[str, ...]:
    """Return names of environment variables."""
    names = listed(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")(text)
    for name in names:
        if name.startswith(SECRET_PREFIX):
            raise ValueError(f"{name} is a secret: workflows read it as secrets.{name[len(SECRET_PREFIX) :]}")
    return names


def file(text: str) -> Path:
    """Return the path of a file that is there and can be read."""
    path = Path(text)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error


def networks(text: str) -> tuple[str, ...]:
    """Return networks; an address alone is one of itself."""
    items = listed(r"[0-9A-Fa-f.:]{2,45}(/[0-9]{1,3})?", "an address or a network such as 10.0.0.0/8")(text)
    for item in items:
        if ipaddress.ip_network(item).prefixlen == 0:  # its ValueError says what is wrong
            raise ValueError(f"{item} is everybody: any client could say that it is anybody")
    return items


def words(text: str) -> str:
    """Return a text that has something in it."""
    if not text.strip() or not text.isprintable():
        raise ValueError("give a text")
    return text.strip()
