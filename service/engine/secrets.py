"""Declared secrets never reach an event: lines are masked, results that hold one are refused.

A secret is looked for as it is and as programs usually write it: escaped, percent-encoded, in base64, in hex,
and broken by the end of a line. What hides one on purpose, such as writing it backwards, is not recognized.
"""

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote_plus

import msgspec
from ahocorasick_rs import BytesAhoCorasick, Implementation
from msgspec import Struct

from service.domain.events import Error, encode_value

MASK = "***"
UNNAMED_LENGTH_MIN = 8  # a shorter one is only looked for where the definition names it: "dev" is in any text
ENCODED_LENGTH_MIN = 8  # of what is looked for in base64 and hex: shorter, it would be there by chance
PART_LENGTH_MIN = 8  # of a line, or of what is ASCII, of a longer secret
BROKEN_LENGTH_MIN = 16  # of what is looked for across the ends of lines
PIECE_LENGTH_MIN = 8  # of one piece of that
DFA_MAX = 1_000  # pieces: of more, the quickest automaton is large and long in the making

_ASCII = re.compile(r"[ -~]+")
_PERCENT_ENCODED = re.compile(rb"(?:%[0-9A-Fa-f]{2}){1,1000}")  # no more: it takes memory for each


class Forms(Struct, frozen=True):
    """How one secret may be written: ``texts``, the longest first, and ``percent`` for any mix of %XX."""

    texts: tuple[str, ...]
    percent: re.Pattern[str]


class Masking:
    """Knows the secrets that one definition ``names``, and all the others that are long enough."""

    def __init__(self, secrets: Mapping[str, str], names: Iterable[str]) -> None:
        named = {secrets[name] for name in names if secrets.get(name)}
        others = {value for value in secrets.values() if len(value) >= UNNAMED_LENGTH_MIN}
        self.values = sorted(named | others, key=len, reverse=True)
        self._clues = _clues(tuple(self.values))
        # Between texts, and in no secret: none has a surrogate, or it could not be encoded.
        self._separator = "\udfff" if any("\0" in value for value in self.values) else "\0"

    def mask(self, text: str) -> str:
        """Return ``text``, one line or several, with every secret replaced by ``***``."""
        for forms in self._clues.of(text):
            for form in forms.texts:
                if len(form) >= BROKEN_LENGTH_MIN:  # first: a part that is masked would hide where it ended
                    text = _without_pieces(text, form)
            for form in forms.texts:
                text = text.replace(form, MASK)
            if "%" in text:
                text = forms.percent.sub(MASK, text)
        return text

    def mask_error(self, error: Error | None) -> Error | None:
        """Return ``error`` with a masked message."""
        if error is None or not self.values:
            return error
        return msgspec.structs.replace(error, message=self.mask(error.message))

    def holds(self, value: object) -> bool:
        """Say whether ``value``, or its JSON, contains a secret. Raises what encoding raises."""
        if not self.values:
            return False
        # The JSON for numbers, the strings for what JSON has escaped; of all of them one text, as one by one
        # a million short ones take seconds.
        text = encode_value(value).decode()
        return self._is_in(self._separator.join((text, *_strings(value))) if "\\" in text else text)

    def _is_in(self, text: str) -> bool:
        joined = text.replace("\n", "").replace("\r", "") if "\n" in text else text
        return any(
            any(form in text or form in joined for form in forms.texts)
            or ("%" in text and forms.percent.search(text) is not None)
            for forms in (*self._clues.of(text), *(self._clues.of(joined) if joined is not text else ()))
        )


class Clues:
    """Tells in one pass over a text which of many secrets may be in it: of most texts, none.

    To look for each form of each is 100 us a line with ten secrets, on the one thread that serves everybody.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self._forms = [_forms(value) for value in values]
        owners: dict[bytes, set[int]] = {}
        broken: list[str] = []
        for number, forms in enumerate(self._forms):
            for form in forms.texts:
                owners.setdefault(_bytes(form[:PIECE_LENGTH_MIN]), set()).add(number)
                if len(form) >= BROKEN_LENGTH_MIN:
                    owners.setdefault(_bytes(form[-PIECE_LENGTH_MIN:]), set()).add(number)
                    broken.append(form)
        self._owners = list(owners.values())
        quick = Implementation.DFA if len(owners) <= DFA_MAX else None
        self._finder = BytesAhoCorasick(list(owners), implementation=quick)
        self._broken = "\n".join(broken)
        self._broken_length_max = max(map(len, broken), default=0)
        # Decoding a text could take these for something else.
        self._undecodable = {number for number, value in enumerate(values) if "%" in value}

    def of(self, text: str) -> Sequence[Forms]:
        """Return the secrets that may be in ``text``, in their order: none that is in it is left out."""
        data = _bytes(text)
        if PIECE_LENGTH_MIN <= len(text) < self._broken_length_max and text in self._broken:
            return self._forms  # the middle of one
        matches = self._finder.find_matches_as_indexes(data, overlapping=True)
        found: set[int] = set()
        if "%" in text:
            found |= self._undecodable
            decoded = _PERCENT_ENCODED.sub(_decoded, data)
            if decoded != data:
                matches += self._finder.find_matches_as_indexes(decoded, overlapping=True)
        if not matches and not found:
            return ()
        found.update(*[self._owners[gram] for gram in {gram for gram, _, _ in matches}])
        return [self._forms[number] for number in sorted(found)]


@lru_cache(maxsize=16)  # one for each set of names that definitions have, and of most there is one
def _clues(values: tuple[str, ...]) -> Clues:
    return Clues(values)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[0].replace(b"%", b"").decode())


@lru_cache(maxsize=256)
def _forms(value: str) -> Forms:
    data = value.encode()
    found = {value, encode_value(value).decode()[1:-1], json.dumps(value)[1:-1], repr(value)[1:-1]}
    found |= {html.escape(value), html.escape(value, quote=False)}
    parts = {part for part in _parts(value) if len(part) >= PART_LENGTH_MIN}
    found |= {form for part in parts for form in (part, json.dumps(part)[1:-1])}
    encoded = {data.hex(), data.hex().upper(), *_in_base64(data)}
    found |= {form for form in encoded if len(form) >= ENCODED_LENGTH_MIN}
    found.add(quote_plus(value))
    percent = "|".join(map(_percent, sorted({value, *parts}, key=len, reverse=True)))
    return Forms(tuple(sorted(found, key=len, reverse=True)), re.compile(percent))


def _parts(value: str) -> Iterator[str]:
    """Yield what may be left of ``value``: lines, what nobody decodes in another way, what a URL ends."""
    for line in value.splitlines():
        for part in (line, *_ASCII.findall(line)):
            yield part
            for before_fragment in part.split("#"):
                yield before_fragment
                yield from before_fragment.split("?")


def _percent(text: str) -> str:
    """Return a pattern for ``text`` with any of it percent-encoded."""
    return "".join(
        f"(?:{re.escape(chr(byte))}|%(?i:{byte:02x}))" if byte < 0x80 else f"%(?i:{byte:02x})"
        for byte in text.encode()
    )


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what of ``data`` in base64 is the same whatever stands before and behind it."""
    for before in range(3):
        text = b64encode(bytes(before) + data).decode()
        core = text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def _without_pieces(text: str, form: str) -> str:
    """Mask what of ``form`` a break has left at the beginning or the end of ``text``."""
    if PIECE_LENGTH_MIN <= len(text) < len(form) and text in form:
        return MASK
    at = text.rfind(form[:PIECE_LENGTH_MIN], max(0, len(text) - len(form)))
    if at >= 0 and form.startswith(text[at:]):
        text = text[:at] + MASK
    at = text.find(form[-PIECE_LENGTH_MIN:], 0, len(form))
    if at >= 0 and form.endswith(text[: at + PIECE_LENGTH_MIN]):
        text = MASK + text[at + PIECE_LENGTH_MIN :]
    return text


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in ``value``, keys included, however deep it lies."""
    left = [value]
    while left:
        match left.pop():
            case str() as text:
                yield text
            case dict() as members:
                left += members.keys()
                left += members.values()
            case list() | tuple() as items:
                left += items
