"""From a condition as people write it to JMESPath's own spelling, token by token.

Plain numbers, true, false and null become literals. Text in double quotes on the right of a comparison is
a text, unless a look-up goes on from it; anywhere else it is JMESPath's quoted name. Names may hold
dashes and, after a dot, begin with a digit. Calls of functions are refused.
"""

import re
from bisect import bisect_right
from itertools import pairwise

import msgspec
from msgspec import Struct

from service.domain.failures import BadExpression
from service.domain.paths import unquote

TOKENS_MAX = 200  # JMESPath's parser goes one call deeper, or two, with every token
COMMAS_MAX = 8  # each may double what a multi-select copies
LITERAL_DEPTH_MAX = 32

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<raw>'(?:[^'\\]|\\.)*')
      | (?P<quoted>"(?:[^"\\]|\\.)*")
      | (?P<literal>`(?:[^`\\]|\\.)*`)
      | (?P<index>\[\s*(?:-?[0-9]{1,9}\s*)?(?::\s*(?:-?[0-9]{1,9}\s*)?){0,2}(?<!\[)\])
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_-]))
      | (?P<name>[A-Za-z0-9_-]+)
      | (?P<sign>==|!=|<=|>=|&&|\|\||\[\?|\[\]|[.*\[\],:@(){}<>!|])""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"(?P<name>[A-Za-z0-9_-]+)")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
_WORDS = {"true", "false", "null"}


class Token(Struct, frozen=True):
    """A token as it was written, and where."""

    kind: str
    text: str
    start: int

    @property
    def column(self) -> int:
        """Return its place in the whole string, from 1."""
        return self.start + 1


class Rewritten(Struct, frozen=True):
    """JMESPath's spelling, and for each token where it begins here and where it stood."""

    text: str
    starts: tuple[int, ...]
    columns: tuple[int, ...]

    def column(self, position: int) -> int:
        """Return where the token at ``position`` of ``text`` stood in the original, from 1."""
        return self.columns[max(0, bisect_right(self.starts, position) - 1)]


def rewrite(text: str, start: int, end: int) -> Rewritten:
    """Return ``text[start:end]`` in JMESPath's spelling. Raises BadExpression."""
    tokens = _scan(text, start, end)
    _check(tokens, end + 1)
    nothing = Token("sign", "", end)
    pieces = [
        _spell(token, before, after)
        for before, token, after in zip([nothing, *tokens], tokens, [*tokens[1:], nothing], strict=False)
    ]
    starts, position = [], 0
    for piece in pieces:
        starts.append(position)
        position += len(piece) + 1
    columns = [*(token.column for token in tokens), end + 1]
    return Rewritten(" ".join(pieces), (*starts, position - 1), tuple(columns))


def _scan(text: str, start: int, end: int) -> list[Token]:
    tokens: list[Token] = []
    while start < end:
        after_dot = bool(tokens) and tokens[-1].text == "."
        match = (after_dot and _NAME.match(text, start, end)) or _TOKEN.match(text, start, end)
        if match is None:
            raise BadExpression(_why_no_token(text[start]), start + 1)
        assert match.lastgroup is not None
        if match.lastgroup != "space":
            tokens.append(Token(match.lastgroup, match[0], start))
        start = match.end()
    return tokens


def _why_no_token(found: str) -> str:
    match found:
        case "=":
            return "'=' is no comparison; write '=='"
        case "&":
            return "'&' has no meaning here; write '&&'"
        case "'" | '"' | "`":
            return "the quote is never closed"
        case _:
            return f"unexpected {found!r}"


def _check(tokens: list[Token], end_column: int) -> None:
    if not tokens:
        raise BadExpression("the condition is empty", end_column)
    if len(tokens) > TOKENS_MAX:
        raise BadExpression(f"a condition has at most {TOKENS_MAX} tokens", tokens[TOKENS_MAX].column)
    commas = [token for token in tokens if token.text == ","]
    if len(commas) > COMMAS_MAX:
        raise BadExpression(f"a condition has at most {COMMAS_MAX} commas", commas[COMMAS_MAX].column)
    for token, after in pairwise(tokens):
        if token.kind in {"name", "quoted"} and after.text == "(":
            raise BadExpression(f"functions cannot be called here: {token.text}()", token.column)


def _spell(token: Token, before: Token, after: Token) -> str:
    match token.kind:
        case "number":
            return _literal(token.text, token)
        case "literal":
            return _literal(token.text[1:-1].replace("\\`", "`"), token)
        case "quoted":
            return _quoted(token, before, after)
        case "index":
            return _index(token)
        case "name":
            return _name(token.text) if before.text == "." else _first_name(token, after)
        case _:
            return token.text


def _quoted(token: Token, before: Token, after: Token) -> str:
    unquote(token.text, token.column)
    looks_on = after.kind == "index" or after.text in {".", "[", "[?", "[]"}
    return _literal(token.text, token) if before.text in _COMPARISONS and not looks_on else token.text


def _first_name(token: Token, after: Token) -> str:
    is_key = after.text == ":"
    if token.text in _WORDS and not is_key:
        return _literal(token.text, token)
    if not any(character.isalpha() or character == "_" for character in token.text):
        raise BadExpression(f"{token.text!r} is neither a name nor a number", token.column)
    return _name(token.text)


def _name(text: str) -> str:
    return text if _PLAIN_NAME.fullmatch(text) else f'"{text}"'


def _index(token: Token) -> str:
    parts = token.text[1:-1].split(":")
    if len(parts) == 3 and parts[2].strip() and int(parts[2]) == 0:
        raise BadExpression("the step of a slice cannot be 0", token.column)
    return token.text


def _literal(json: str, token: Token) -> str:
    if json.count("[") + json.count("{") > LITERAL_DEPTH_MAX:
        raise BadExpression("the literal is too deep", token.column)
    try:
        msgspec.json.decode(json)
    except ValueError:
        raise BadExpression(f"{token.text} is not a JSON value", token.column) from None
    return "`" + json.replace("`", "\\`") + "`"
