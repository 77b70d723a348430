"""Tokens of an identity provider: the algorithm is the key's, every claim is checked, and no text quotes them."""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from service.access import TokenIssuer
from service.errors import InvalidInput, Unauthenticated

SECRET = "0123456789abcdef0123456789abcdef"
PRIVATE = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def issuer(tmp_path, data: bytes, *, leeway_s: float = 10.0) -> TokenIssuer:
    path = tmp_path / "jwt"
    path.write_bytes(data)
    return TokenIssuer.of_file(path, issuer="https://id.example", audience="tailrace", leeway_s=leeway_s)


def claims(**changed: Any) -> dict[str, Any]:
    all_ = {
        "iss": "https://id.example", "aud": "tailrace", "sub": "ann", "exp": time.time() + 60,
        "scope": "read tailrace:run openid",
    } | changed  # fmt: skip
    return {name: value for name, value in all_.items() if value is not None}


@pytest.mark.parametrize("algorithm", [*PRIVATE, "HS256"])
def test_a_token_grants_its_scope_until_it_expires(tmp_path, algorithm):
    data = public(PRIVATE[algorithm]) if algorithm in PRIVATE else SECRET.encode() + b"\n"
    taken = issuer(tmp_path, data)
    payload = claims()
    grant = taken.grant(jwt.encode(payload, PRIVATE.get(algorithm, SECRET), algorithm))
    assert (grant.name, grant.rights) == ("ann", {"read", "run"})
    assert grant.expires_at == pytest.approx(int(payload["exp"]) + 10, abs=1.1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"exp": time.time() - 60}, "expired"),
        ({"exp": None}, "no exp"),
        ({"iss": "https://other.example"}, "not from our issuer"),
        ({"iss": None}, "no iss"),
        ({"aud": "another"}, "not for us"),
        ({"aud": None}, "no aud"),
        ({"sub": None}, "no sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "malformed"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "anonymous"}, "sub"),
        ({"scope": ["admin"]}, "scope"),
        ({"nbf": time.time() + 3600}, "its time has not come"),
        ({"exp": "soon"}, "malformed"),
    ],
)
def test_a_claim_that_is_wrong_or_missing_is_named_and_grants_nothing(tmp_path, changed, said):
    token = jwt.encode(
        claims(**{k: v for k, v in changed.items() if k != "sub" or v is None}), SECRET, "HS256"
    )
    if changed.get("sub") is not None or changed.get("sub") == "":
        token = jwt.api_jws.encode(json.dumps(claims(**changed)).encode(), SECRET, "HS256")
    with pytest.raises(Unauthenticated, match=said) as caught:
        issuer(tmp_path, SECRET.encode()).grant(token)
    assert token not in str(caught.value)


def signed(**changed: Any) -> str:
    """Return a token that our library would not make."""
    return jwt.api_jws.encode(json.dumps(claims(**changed)).encode(), SECRET, "HS256")


@pytest.mark.parametrize(
    "exp",
    [
        1e300,
        10**400,
        float("inf"),
        float("-inf"),
        float("nan"),
        253_402_300_800,
        253_402_300_795,
        True,
        "",
        [],
        {},
    ],
    ids=lambda exp: str(exp)[:20],
)
def test_an_end_that_is_no_time_is_refused(tmp_path, exp):
    with pytest.raises(Unauthenticated):
        issuer(tmp_path, SECRET.encode()).grant(signed(exp=exp))


def test_a_time_far_away_can_be_told(tmp_path):
    assert issuer(tmp_path, SECRET.encode()).grant(signed(exp=253_402_300_000)).expires_at == 253_402_300_010


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("value", [1e300, 10**400, float("inf"), float("nan")], ids=lambda exp: str(exp)[:20])
def test_nor_is_any_other_time_that_is_none(tmp_path, name, value):
    with pytest.raises(Unauthenticated):
        issuer(tmp_path, SECRET.encode()).grant(signed(**{name: value}))


@pytest.mark.parametrize(
    "sub",
    [
        "auth0|5f7c8ec7c33c6c004bbafe82", "repo:org/app:ref:refs/heads/main", "https://id.example/users/1?x=1#y",
        "00uid@clients", "CN=Ann Bee,O=Example", "Änne 李", "a", "system:serviceaccount:ns:ci", "x" * 128, "user a",
    ],
)  # fmt: skip
def test_a_user_may_be_called_what_providers_call_them(tmp_path, sub):
    assert issuer(tmp_path, SECRET.encode()).grant(signed(sub=sub)).name == sub


@pytest.mark.parametrize(
    "sub",
    [
        "",
        " ",
        " ann",
        "ann ",
        "a\tb",
        "a\x00",
        "a\x1b[31m",
        "a\u202eb",
        "a\u2028b",
        "\ud800",
        "x" * 129,
        "anonymous",
    ],
)
def test_but_not_what_nobody_can_see_or_what_stands_for_nobody(tmp_path, sub):
    with pytest.raises(Unauthenticated):
        issuer(tmp_path, SECRET.encode()).grant(signed(sub=sub))


def test_a_clock_that_is_a_little_off_is_forgiven(tmp_path):
    taken = issuer(tmp_path, SECRET.encode())
    assert taken.grant(jwt.encode(claims(exp=time.time() - 5, nbf=time.time() + 5), SECRET, "HS256"))
    with pytest.raises(Unauthenticated):
        issuer(tmp_path, SECRET.encode(), leeway_s=0).grant(
            jwt.encode(claims(exp=time.time() - 5), SECRET, "HS256")
        )


def test_a_public_key_cannot_be_used_as_a_secret(tmp_path):
    """The confusion of algorithms (RFC 8725 §2.1): signed with HS256 and the key that everybody knows."""
    import base64
    import hashlib
    import hmac

    pem = public(PRIVATE["RS256"])

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims(scope="admin")).encode())
    token = signed + b"." + part(hmac.new(pem.strip(), signed, hashlib.sha256).digest())
    with pytest.raises(Unauthenticated, match="malformed, or not signed"):
        issuer(tmp_path, pem).grant(token.decode())


@pytest.mark.parametrize("key", [None, "other"])
def test_no_signature_or_another_one_grants_nothing(tmp_path, key):
    token = jwt.encode(claims(), None, "none") if key is None else jwt.encode(claims(), SECRET[::-1], "HS256")
    with pytest.raises(Unauthenticated):
        issuer(tmp_path, SECRET.encode()).grant(token)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "\0", "{}", "a" * 100_000, "." * 9_000])
def test_what_is_no_token_grants_nothing(tmp_path, text):
    with pytest.raises(Unauthenticated):
        issuer(tmp_path, SECRET.encode()).grant(text)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"short", "at least 32"),
        (b"", "at least 32"),
        (b"-----BEGIN PUBLIC KEY-----\nxxx\n-----END PUBLIC KEY-----", "no public key"),
        (
            PRIVATE["ES256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "a private key",
        ),
        (public(dsa.generate_private_key(2048)), "give an RSA key"),
        (public(ec.generate_private_key(ec.SECP256K1())), "give an RSA key"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_at_start(tmp_path, data, said):
    with pytest.raises(InvalidInput, match=said):
        issuer(tmp_path, data)
