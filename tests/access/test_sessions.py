"""Sessions: worth what they were made of, for as long as that is worth something, and only so many are ended."""

import asyncio
import json
import time
from contextlib import suppress

import jwt
import pytest

from service.access import Authentication, Grant, KeyFile, TokenIssuer
from service.access import authentication as module
from service.access.keys import SESSION_LIFETIME_S
from service.access.tokens import sign_session
from service.errors import Unauthenticated
from tests.access.test_keys import held

SECRET = b"0123456789abcdef0123456789abcdef"
ADMIN = frozenset({"admin"})


def issuer(key: bytes = SECRET, name: str = "i", audience: str = "a") -> TokenIssuer:
    return TokenIssuer(key, ["HS256"], issuer=name, audience=audience)


def token(name: str = "ann", lifetime_s: float = 86_400) -> str:
    claims = {"iss": "i", "aud": "a", "sub": name, "scope": "admin", "exp": time.time() + lifetime_s}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.fixture
def keys(tmp_path):
    keys = KeyFile(tmp_path / "t.db.keys")
    keys.ensure()
    return keys


def worth_nothing(authentication: Authentication, text: str) -> bool:
    with suppress(Unauthenticated):
        authentication.session(text)
        return False
    return True


@pytest.mark.parametrize(
    "other",
    [None, issuer(SECRET[::-1]), issuer(name="j"), issuer(audience="b")],
    ids=lambda each: each and each.issuer,
)
def test_a_session_of_a_token_is_worth_nothing_without_the_very_issuer(keys, other):
    first = Authentication(keys, issuer())
    text, lifetime_s = first.open_session(first.bearer(token()))
    assert lifetime_s == SESSION_LIFETIME_S
    grant = first.session(text)
    assert (grant.name, grant.rights) == ("ann", ADMIN)
    assert first.renewed(grant) == grant
    assert not worth_nothing(Authentication(keys, issuer()), text), "after a restart"
    after = Authentication(keys, other)
    assert worth_nothing(after, text)
    with pytest.raises(Unauthenticated):
        after.renewed(grant)


def test_the_fingerprint_of_an_issuer_does_not_tell_its_secret():
    assert SECRET.decode() not in issuer().fingerprint
    assert issuer().fingerprint == issuer().fingerprint


def test_a_session_of_a_key_needs_no_issuer_and_ends_with_the_key(keys):
    key, text = keys.create("ann", ("read",), int(time.time()))
    first = Authentication(keys)
    session, _ = first.open_session(first.bearer(text))
    assert Authentication(keys, issuer()).session(session).name == "ann"
    keys.revoke((key.id,), int(time.time()))
    assert worth_nothing(first, session)


def forged(keys: KeyFile, **changed) -> str:
    now = int(time.time())
    claims = {
        "aud": "tailrace-session", "sub": "ghost", "iat": now, "exp": now + 600, "jti": "a", "rights": ["admin"],
        "key": None, "issuer": None,
    } | changed  # fmt: skip
    claims = {name: value for name, value in claims.items() if value != "left out"}
    return jwt.encode(claims, keys.read().session_secret, "HS256")


@pytest.mark.parametrize("known", [None, issuer()], ids=["no issuer", "an issuer"])
def test_what_somebody_signs_who_has_read_the_file_needs_a_key_or_the_issuer(keys, known):
    authentication = Authentication(keys, known)
    assert worth_nothing(authentication, forged(keys))
    assert worth_nothing(authentication, forged(keys, issuer="left out"))
    assert worth_nothing(authentication, forged(keys, key="0123456789abcdef"))


def test_a_session_is_never_older_than_ours_may_be(keys):
    authentication = Authentication(keys, issuer())
    fingerprint, now = issuer().fingerprint, int(time.time())
    day = {"issuer": fingerprint, "exp": now + 900_000}
    taken = authentication.session(forged(keys, **day))
    assert taken.expires_at == taken.issued_at + SESSION_LIFETIME_S
    for wrong in (
        {"iat": now - SESSION_LIFETIME_S}, {"iat": now + 3_600}, {"iat": "left out"}, {"iat": "soon"}, {"iat": 1e300},
        {"iat": 1e400}, {"exp": 1e400}, {"rights": 7}, {"rights": "left out"}, {"key": "left out"},
    ):  # fmt: skip
        assert worth_nothing(authentication, forged(keys, **(day | wrong))), wrong


async def test_a_session_that_was_ended_is_over_everywhere_and_the_next_one_counts(keys):
    authentication = Authentication(keys, issuer())
    grant = authentication.bearer(token())
    texts = [authentication.open_session(grant)[0] for _ in range(3)]
    opened = [authentication.session(text) for text in texts]
    await asyncio.gather(*(authentication.end_session(each) for each in opened[:2]))
    assert [worth_nothing(authentication, text) for text in texts] == [True, True, False]
    assert worth_nothing(Authentication(keys, issuer()), texts[0]), "in another process"
    with pytest.raises(Unauthenticated):
        authentication.renewed(opened[0])
    assert authentication.renewed(opened[2])
    book = json.loads(keys.path.read_text())
    book["sessionsFrom"] = {"ann": int(time.time()) + 1}
    keys.path.write_text(json.dumps(book))
    assert worth_nothing(authentication, texts[2])
    text, _ = authentication.open_session(grant)
    assert not worth_nothing(authentication, text), "opened in the same second"


async def test_who_holds_the_keys_for_long_holds_nobody_but_who_logs_out(keys, monkeypatch):
    monkeypatch.setattr("service.access.keys.LOCK_TIMEOUT_S", 1.0)
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 1.0)
    authentication = Authentication(keys, issuer())
    text, _ = authentication.open_session(authentication.bearer(token()))
    grant = authentication.session(text)
    with held(keys.path.parent):
        ending = [asyncio.create_task(authentication.end_session(grant)) for _ in range(3)]
        for _ in range(5):
            began = time.monotonic()
            await asyncio.sleep(0.01)
            assert authentication.session(text)
            assert time.monotonic() - began < 0.5
        found = await asyncio.gather(*ending, return_exceptions=True)
    assert [type(each) for each in found] == [TimeoutError] * 3
    assert authentication.session(text), "it was not ended, and nobody was told so"
    await authentication.end_session(grant)
    assert worth_nothing(authentication, text)


def test_a_text_of_ours_says_what_it_was_given():
    grant = Grant("auth0|x", ADMIN, session_id="s", issued_at=1, expires_at=2, issuer="f")
    claims = jwt.decode(sign_session(grant, SECRET.decode()), options={"verify_signature": False})
    assert (claims["sub"], claims["iat"], claims["exp"], claims["issuer"]) == ("auth0|x", 1, 2, "f")
