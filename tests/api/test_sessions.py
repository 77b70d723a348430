"""Sessions on the real service: what they are worth, and what logging out ends, whoever is in the way."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from websockets.sync.client import connect

from tests.access.test_keys import held
from tests.api.secured import W, logged_in, token


def test_a_session_is_worth_the_key_until_it_is_ended(house):
    cookie = logged_in(house, "reader")
    who = house.ask("GET", "/api/v2/session", None, cookie=cookie).json
    assert (who["name"], who["rights"]) == ("ann", ["read"])
    assert house.ask("GET", f"{W}/runs/{house.run}", None, cookie=cookie).status == 200
    assert house.ask("POST", f"{W}/short/execute", None, cookie=cookie).status == 403
    with connect(
        f"{house.server.ws_url}{W}/runs/{house.run}/stream", additional_headers={"Cookie": cookie}
    ) as ws:
        assert [json.loads(message)["type"] for message in ws][-1] == "step_complete"
    ended = house.ask("DELETE", "/api/v2/session", None, cookie=cookie)
    assert ended.status == 204
    assert "Max-Age=0" in ended.headers["set-cookie"]
    assert house.ask("GET", f"{W}/runs/{house.run}", None, cookie=cookie).status == 401, "everywhere"


def test_who_shows_a_key_besides_the_cookie_ends_the_session_of_the_cookie(house):
    cookie = logged_in(house, "reader")
    elsewhere = house.ask(
        "DELETE", "/api/v2/session", "ann", cookie=cookie, **{"sec-fetch-site": "cross-site"}
    )
    assert elsewhere.status == 204
    assert house.ask("GET", W, None, cookie=cookie).status == 200, "a page of another origin has no say in it"
    assert house.ask("DELETE", "/api/v2/session", "ann", cookie=cookie).status == 204
    assert house.ask("GET", W, None, cookie=cookie).status == 401
    assert house.ask("DELETE", "/api/v2/session", "ann", cookie=cookie).status == 204, "again is no fault"
    assert house.ask("DELETE", "/api/v2/session", "ann").status == 204


def test_who_holds_the_keys_holds_a_log_out_and_nothing_else(house):
    cookie = logged_in(house, "reader")
    with ThreadPoolExecutor(1) as pool:
        with held(house.server.db.parent):
            ending = pool.submit(house.ask, "DELETE", "/api/v2/session", None, cookie=cookie)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert house.ask("GET", W, None, cookie=cookie).status == 200
            assert not ending.done()
        assert ending.result().status == 204
    assert house.ask("GET", W, None, cookie=cookie).status == 401


def test_a_log_out_that_cannot_be_written_is_no_log_out(house):
    cookie = logged_in(house, "reader")
    blocking = house.server.db.with_name("tailrace.db.keys.new")
    (blocking / "x").mkdir(parents=True)
    try:
        answer = house.ask("DELETE", "/api/v2/session", None, cookie=cookie)
        assert (answer.status, "set-cookie" in answer.headers) == (503, False)
    finally:
        shutil.rmtree(blocking)
    assert house.ask("GET", W, None, cookie=cookie).status == 200
    assert house.ask("DELETE", "/api/v2/session", None, cookie=cookie).status == 204


def test_a_session_of_a_token_ends_with_the_token(house):
    answer = house.ask("POST", "/api/v2/session", None, {"key": token("cid", "read", 100)})
    lifetime = next(each for each in answer.headers["set-cookie"].split("; ") if each.startswith("Max-Age"))
    assert 90 <= int(lifetime.partition("=")[2]) <= 111


def test_a_page_of_another_origin_cannot_use_a_session(house):
    cookie = logged_in(house, "admin")
    for origin in ("https://evil.example", "null", f"http://127.0.0.1.evil.example:{house.server.port}"):
        assert house.ask("DELETE", f"{W}/short", None, cookie=cookie, origin=origin).status == 403
