"""What counts as a secret that is written: as it is, in the usual encodings, and broken by the end of a line."""

import html
import json
import re
import threading
from base64 import b64encode, encodebytes, urlsafe_b64encode
from urllib.parse import quote, quote_plus, unquote, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.attempt import _ended
from service.engine.secrets import _PERCENT_ENCODED, Masking, _decoded
from service.steps import Outcome

SECRET = 'p@ss/w+rd &="é"\\<9> and twenty more characters?'
WRITTEN = {
    "as it is": lambda s: s,
    "JSON": lambda s: json.dumps({"k": s}),
    "JSON with UTF-8": lambda s: json.dumps({"k": s}, ensure_ascii=False),
    "repr": lambda s: repr(["x", s]),
    "HTML": html.escape,
    "percent": lambda s: quote(s, safe=""),
    "percent, of a path": quote,
    "percent, lower case": lambda s: re.sub("%..", lambda found: found[0].lower(), quote(s, safe="@&")),
    "form": quote_plus,
    "base64": lambda s: b64encode(s.encode()).decode(),
    "base64 behind a user": lambda s: b64encode(f"me:{s}".encode()).decode(),
    "base64 behind another": lambda s: b64encode(f"user:{s}:and more".encode()).decode(),
    "base64 for URLs": lambda s: urlsafe_b64encode(f"u:{s}".encode()).decode().rstrip("="),
    "UTF-8 read as Latin-1": lambda s: s.encode().decode("latin-1"),
    "UTF-8 read as ASCII": lambda s: s.encode().decode("ascii", "replace"),
    "hex": lambda s: s.encode().hex(),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_every_usual_form_is_masked_and_refused(form):
    masking = Masking({"X": SECRET}, [])
    text = WRITTEN[form](SECRET)
    for before, behind in (("", ""), ("before ", " behind")):
        masked = masking.mask(before + text + behind)
        assert "***" in masked
        assert not masking.holds([masked])
        assert masked.startswith(before)
        assert masked.endswith(behind)
        assert masking.holds({"deep": [{before + text + behind: 1}]})
        assert masking.holds([before + text + behind])


@pytest.mark.parametrize("cut", range(8, 33, 3))
def test_both_pieces_of_one_that_was_broken_are_masked(cut):
    masking = Masking({"X": SECRET}, ["X"])
    assert masking.mask(f"so it begins: {SECRET[:cut]}") == "so it begins: ***"
    assert masking.mask(f"{SECRET[cut:]} and ends") == "*** and ends"
    wrapped = encodebytes(f"a user before it, of some length:{SECRET}:more".encode()).decode()
    assert wrapped.count("\n") > 1
    for line in wrapped.splitlines():
        assert "***" in masking.mask(line)
    assert masking.holds({"stdout": wrapped})


SECRETS = {
    "A": SECRET,
    "B": "https://user:pass-of-some-length@host",
    "C": "https://user:another-of-the-same-kind@host",
    "D": "dev",
    "E": "50%41% of it, and more than that",
    "F": "line one of a key\nline two, quite long, of a key",
    "G": "12345678",
}


def texts(values: list[str]) -> st.SearchStrategy[str]:
    """Texts in which a secret may be: written in some way, a piece of one, or of what only looks like one."""
    written = st.builds(
        lambda way, value: WRITTEN[way](value), st.sampled_from(list(WRITTEN)), st.sampled_from(values)
    )
    mixed = st.builds(
        lambda value, which: "".join(
            f"%{byte:02X}" if byte > 127 or which >> (at % 17) & 1 else chr(byte)
            for at, byte in enumerate(value.encode())
        ),
        st.sampled_from(values), st.integers(0, 2**17 - 1),
    )  # fmt: skip
    piece = st.builds(
        lambda text, start, length: text[start : start + length],
        written | mixed,
        st.integers(0, 40),
        st.integers(0, 40),
    )
    noise = st.text("%4 1a\nh:/é\udcff-", max_size=12) | st.sampled_from(
        ["https://", "%41", "line two", "***"]
    )
    return st.lists(written | mixed | piece | noise, min_size=1, max_size=4).map("".join)


@settings(max_examples=1_500, deadline=None, derandomize=True, database=None)
@given(st.data(), st.sets(st.sampled_from(sorted(SECRETS)), min_size=1))
def test_looking_for_all_secrets_at_once_misses_none(data: st.DataObject, names: set[str]) -> None:
    secrets = {name: SECRETS[name] for name in sorted(names)}
    text = data.draw(texts(list(secrets.values())))
    masking = Masking(secrets, names)
    found = masking.mask(text), masking._is_in(text)
    masking._clues.of = lambda _: masking._clues._forms
    try:
        assert found == (masking.mask(text), masking._is_in(text))
    finally:
        del masking._clues.of


def test_what_only_looks_like_another_secret_hides_none():
    masking = Masking({"A": "ABCDEFGH-is-not-there", "B": "EFGHIJKLMNOP"}, [])
    assert masking.mask("ABCDEFGHIJKLMNOPQRST") == "ABCD***QRST"
    assert Masking({"C": "a%41bcdef"}, []).mask("x%61%41bcdef") == "x***"


@pytest.mark.parametrize(
    "secret", ["no-URL-has-it?whole", "a#fragment-of-it?is-cut-off", "p%rc>nt-and?all-of-it"]
)
def test_what_a_url_leaves_of_a_secret_is_masked(secret):
    masking = Masking({"X": secret}, [])
    for url in (f"http://h/a/{secret}/b", f"http://h/a/{quote(secret, safe='/#?&')}/b"):
        for cut in (url, url.partition("#")[0], url.partition("?")[0]):
            left = masking.mask(f"GET {cut} -> 200").removeprefix("GET http://h/a/")
            assert not any(
                piece in unquote(left) for piece in (secret[-8:], secret.split("#")[-1].split("?")[0])
            )
            assert not masking.holds([masking.mask(cut)])


def test_a_key_of_many_lines_is_masked_line_by_line():
    key = (
        "-----BEGIN KEY-----\n"
        + "\n".join(f"MIIEvQIBADANBgkqhkiG{n:012d}" for n in range(3))
        + "\n-----END KEY-----"
    )
    masking = Masking({"X": key}, [])
    assert [masking.mask(line) for line in key.splitlines()] == ["***"] * 5


def test_what_is_no_secret_stays():
    masking = Masking({"SHORT": "dev", "X": SECRET}, [])
    for text in ("development", "100 % of it", "p@ss", "aGVsbG8gd29ybGQ=", "a+b", "%2F%20", ""):
        assert masking.mask(text) == text
        assert not masking.holds([text])
    assert Masking({"SHORT": "dev"}, ["SHORT"]).mask("development") == "***elopment"
    assert Masking({}, ["X"]).values == []


def test_a_number_that_is_a_secret_is_refused():
    assert Masking({"PIN": "73519264"}, []).holds({"pin": 73519264})


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(st.data(), st.sets(st.sampled_from(sorted(SECRETS)), min_size=1))
def test_many_strings_at_once_hold_what_one_of_them_holds(data: st.DataObject, names: set[str]) -> None:
    secrets = {name: SECRETS[name] for name in sorted(names)}
    masking = Masking(secrets, names)
    text = texts(list(secrets.values())).map(lambda text: text.replace("\udcff", "").replace("\r", ""))
    strings = data.draw(st.lists(st.one_of(text, st.sampled_from(["\n", '"', "\\", ""])), max_size=4))
    for value in (strings, {"deep": [dict.fromkeys(strings, 1)]}):
        one_by_one = masking._is_in(json.dumps(value)) or any(map(masking._is_in, strings))
        assert masking.holds(value) == (one_by_one or masking._is_in(json.dumps(value, ensure_ascii=False)))


@pytest.mark.parametrize("between", ["", "\0"])
def test_halves_in_neighbouring_strings_are_no_secret(between):
    first, second = "first", "\\2nd"
    masking = Masking({"X": first + between + second, "Y": "of-some-length"}, ["X"])
    assert not masking.holds(["a\n", first, second, "of-some", "-length", second, first])
    assert masking.holds(["a\n", first + between + second])
    assert masking.holds(["a\n", {"of-some-length": 1}])


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.text("%4aFgé", max_size=30))
def test_percent_encoding_is_undone_as_urllib_undoes_it(text):
    data = text.encode()
    assert _PERCENT_ENCODED.sub(_decoded, data) == unquote_to_bytes(data)


@pytest.mark.parametrize("large", [True, False])
async def test_a_large_result_is_searched_beside_the_loop(large, monkeypatch):
    searched = []
    masking = Masking({"X": SECRET}, [])
    holds = masking.holds

    def watched(value):
        searched.append((value, threading.current_thread() is threading.main_thread()))
        return holds(value)

    monkeypatch.setattr(masking, "holds", watched)
    for text, code in (("x", None), (SECRET, "secret_in_output")):
        document = {"body": "x" * 100_000 + text} if large else {"body": text}
        ended = await _ended(Outcome("success", document, {"small": 1} if large else None), masking)
        assert (ended.error and ended.error.code) == code
        assert searched.pop() == (document, not large)
