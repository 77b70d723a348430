"""JSON Web Tokens (RFC 7519): of an identity provider, and our own, that sessions are made of."""

import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from service.access.grants import ANONYMOUS, RIGHTS, Grant
from service.access.keys import SESSION_LIFETIME_S
from service.errors import Fault, InvalidInput, Unauthenticated

SECRET_BYTES_MIN = 32  # RFC 7518 §3.2: as long as the hash
RSA_BITS_MIN = 2_048  # RFC 7518 §3.3
TOKEN_LENGTH_MAX = 8_192  # characters; of a longer one the signature is cut off
NAME_LENGTH_MAX = 128  # characters
EXPIRES_AT_MAX = 253_402_300_799  # the last second that a calendar of four digits has
SESSION_AUDIENCE = "tailrace-session"
CLOCK_SET_BACK_S = 60  # by which a session may seem to be of the future

_UNUSABLE = (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError)
_SESSION_OVER = "The session is over: log in again."
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class TokenIssuer:
    """An identity provider whose tokens are taken: signed with ``key``, by ``issuer``, for ``audience``.

    A token names its user in ``sub``, 1 to 128 printable characters, and their rights in ``scope`` (RFC 8693
    §4.2: separated by spaces; each may begin with ``tailrace:``). ``exp``, ``iss``, ``aud`` and ``sub`` must
    be there; ``leeway_s`` is granted to its clock. The algorithm is the key's, never the token's choice
    (RFC 8725 §3.1).
    """

    def __init__(
        self, key: Any, algorithms: list[str], *, issuer: str, audience: str, leeway_s: float = 10.0
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.leeway_s = leeway_s
        self.fingerprint = _fingerprint(issuer, audience, key)
        self._key = key
        self._algorithms = algorithms

    @classmethod
    def of_file(cls, path: Path, *, issuer: str, audience: str, leeway_s: float) -> "TokenIssuer":
        """Return the issuer whose public key (PEM), or shared secret, is in ``path``. Raises InvalidInput."""
        try:
            data = path.read_bytes().strip()
        except OSError as error:
            raise _bad_key(f"{path} cannot be read: {error.strerror}") from error
        if b"-----BEGIN" in data:
            key, algorithm = _public(data, path)
        else:
            key, algorithm = data, "HS256"
            if len(data) < SECRET_BYTES_MIN:
                raise _bad_key(f"{path} holds a secret of {len(data)} bytes: at least {SECRET_BYTES_MIN}")
        return cls(key, [algorithm], issuer=issuer, audience=audience, leeway_s=leeway_s)

    def grant(self, text: str) -> Grant:
        """Return what the token ``text`` grants. Raises Unauthenticated."""
        try:
            claims = jwt.decode(
                text[: TOKEN_LENGTH_MAX + 1], self._key, self._algorithms, issuer=self.issuer,
                audience=self.audience, leeway=self.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except _UNUSABLE as error:
            raise Unauthenticated(f"The token is not valid: {_said(error)}.") from None
        name, scope, expires_at = claims["sub"], claims.get("scope", ""), claims["exp"]
        if not _is_name(name) or not isinstance(scope, str):
            raise Unauthenticated("The token is not valid: its sub or its scope cannot be used.")
        if not isinstance(expires_at, int | float) or expires_at > EXPIRES_AT_MAX - self.leeway_s:
            raise Unauthenticated("The token is not valid: its exp is no time that can be told.")
        rights = frozenset(word.removeprefix("tailrace:") for word in scope.split()) & frozenset(RIGHTS)
        return Grant(name, rights, expires_at=expires_at + self.leeway_s, issuer=self.fingerprint)


def sign_session(grant: Grant, secret: str) -> str:
    """Return ``grant`` as a text that only we can have made; it needs to be of a session."""
    assert grant.session_id is not None
    assert grant.issued_at is not None
    assert grant.expires_at is not None
    claims = {
        "aud": SESSION_AUDIENCE,
        "sub": grant.name,
        "iat": grant.issued_at,
        "exp": int(grant.expires_at),
        "jti": grant.session_id,
        "rights": sorted(grant.rights),
        "key": grant.key_id,
        "issuer": grant.issuer,
    }
    return jwt.encode(claims, secret, "HS256")


def read_session(text: str, secret: str) -> Grant:
    """Return the grant that sign_session was given, for SESSION_LIFETIME_S at most, whatever it says.

    Raises Unauthenticated once it is over, or not ours.
    """
    try:
        claims = jwt.decode(
            text[: TOKEN_LENGTH_MAX + 1], secret, ["HS256"], audience=SESSION_AUDIENCE,
            options={"require": ["exp", "iat", "jti", "sub"], "verify_iat": False},
        )  # fmt: skip
        issued_at = int(claims["iat"])
        expires_at = min(int(claims["exp"]), issued_at + SESSION_LIFETIME_S)
        grant = Grant(
            claims["sub"], frozenset(claims["rights"]), key_id=claims["key"], session_id=claims["jti"],
            expires_at=expires_at, issuer=claims["issuer"], issued_at=issued_at,
        )  # fmt: skip
    except (*_UNUSABLE, KeyError):
        raise Unauthenticated(_SESSION_OVER) from None
    if not issued_at - CLOCK_SET_BACK_S <= time.time() < expires_at:
        raise Unauthenticated(_SESSION_OVER)
    return grant


def _is_name(sub: str) -> bool:
    """Tell whether a user can be called so: providers put ``|``, ``/`` and ``:`` into it.

    At its ends no space, which nobody sees.
    """
    return sub.isprintable() and sub == sub.strip() and 1 <= len(sub) <= NAME_LENGTH_MAX and sub != ANONYMOUS


def _fingerprint(issuer: str, audience: str, key: Any) -> str:
    """Return what changes with each of them, and tells none."""
    data = (
        key if isinstance(key, bytes) else key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return sha256(json.dumps([issuer, audience]).encode() + data).hexdigest()[:32]


def _public(data: bytes, path: Path) -> tuple[Any, str]:
    """Return a public key and the one algorithm that fits it."""
    if b"PRIVATE KEY" in data:
        raise _bad_key(f"{path} holds a private key: only the issuer needs it; give the public one")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_key(f"{path} holds no public key in PEM: {error}") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return key, "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key, _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key, "EdDSA"
    raise _bad_key(
        f"{path}: give an RSA key of {RSA_BITS_MIN} bits or more, a NIST curve's, or an Ed25519 key"
    )


def _bad_key(said: str) -> InvalidInput:
    return InvalidInput([Fault("TAILRACE_JWT_KEY_FILE", said)], detail="The settings are not valid.")


def _said(error: Exception) -> str:
    """Return why a token is refused, in words of our own: the library's may quote it."""
    match error:
        case jwt.ExpiredSignatureError():
            return "it has expired"
        case jwt.InvalidAudienceError() | jwt.InvalidIssuerError():
            return "it is not from our issuer, or not for us"
        case jwt.MissingRequiredClaimError():
            return f"it has no {error.claim}"
        case jwt.ImmatureSignatureError():
            return "its time has not come"
        case _:
            return "it is malformed, or not signed by our issuer"
