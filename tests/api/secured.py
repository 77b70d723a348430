"""A service with keys and an identity provider, and the people who use it."""

import time
from contextlib import suppress

import jwt
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.server import Server

W = "/api/v2/workflows"
BODY = {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}}
LONG = {"steps": {"a": {"type": "wait", "config": {"duration": "10m"}}}}
SECRET = "a shared secret of the identity provider"
JWT = {"TAILRACE_JWT_ISSUER": "https://id.example", "TAILRACE_JWT_AUDIENCE": "tailrace"}


def token(name: str, scope: str = "read run", lifetime_s: float = 600) -> str:
    claims = {"iss": "https://id.example", "aud": "tailrace", "sub": name, "scope": scope}
    return jwt.encode(claims | {"exp": time.time() + lifetime_s}, SECRET, "HS256")


class House:
    """A service with keys and an identity provider; ``ann`` has a finished run and one that goes on."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.keys = {
            "admin": server.create_key("root", "admin"),
            "ann": server.create_key("ann", "read,run"),
            "bob": server.create_key("bob", "read,run"),
            "reader": server.create_key("ann", "read"),
            "writer": server.create_key("writer", "write"),
            "metrics": server.create_key("metrics", "metrics"),
            "revoked": server.create_key("ann", "admin"),
        }
        server.revoke_keys(self.keys["revoked"])

    def prepare(self) -> None:
        self.server.key = self.keys["admin"]
        self.server.create("short", BODY)
        self.server.create("long", LONG)
        self.server.key = self.keys["ann"]
        self.run = self.server.execute("short")
        self.server.finished(self.run)
        self.going = self.server.execute("long")
        self.server.key = None

    def ask(self, method: str, path: str, who: str | None, body=None, **headers: str):
        if who is not None:
            headers["authorization"] = f"Bearer {self.keys.get(who, who)}"
        return self.server.request(method, path, body, headers)

    def socket(self, path: str, who: str | None = None, **options):
        """Return the close code, or the HTTP status that refused it."""
        headers = {} if who is None else {"Authorization": f"Bearer {self.keys.get(who, who)}"}
        try:
            with connect(self.server.ws_url + path, additional_headers=headers, **options) as client:
                with suppress(ConnectionClosedError):
                    for _ in client:
                        pass
                return client.close_code
        except InvalidStatus as error:
            return error.response.status_code


def logged_in(house: House, who: str) -> str:
    answer = house.ask("POST", "/api/v2/session", None, {"key": house.keys.get(who, who)})
    assert answer.status == 200, answer
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    return cookie
