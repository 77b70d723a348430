"""How a watch behaves when the other side does not: every way to lose a stream, and to be refused one."""

import asyncio
import socket
from contextlib import aclosing

import pytest

from service.client import Backoff, Client, Inconsistent, Refused, Unreachable
from service.client.watch import RETRY_AFTER_MAX_S, Watch
from tests.cli.scripted import closes, cut, denies, ends, event, hello, said, scripted

TIMEOUT_S = 30.0


async def seqs(watch: Watch) -> list[int]:
    async with asyncio.timeout(TIMEOUT_S):
        return [event.seq async for event in watch]


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1011, 1012, 1013, 1014, 4408, 4429])
async def test_a_close_before_the_runs_end_is_followed(code):
    first = closes(1, 2, code=code, reason="" if code == 1005 else "later")
    async with scripted(first, ends(3)) as script:
        told: list[str] = []
        watch = script.client.watch("r", notice=told.append)
        assert await seqs(watch) == [1, 2, 3]
        assert (watch.status, watch.summary) == ("success", "3 of 3 events")
        assert script.asked == [{"control": "1"}, {"control": "1", "after": "2"}]
        assert told[0].startswith(f"closed {code} {'' if code == 1005 else 'later'}".rstrip() + "; again in ")
        assert told[0].endswith("after seq 2")


async def test_a_cut_connection_is_taken_up():
    async with scripted(cut(1), cut(), ends(2)) as script:
        told: list[str] = []
        assert await seqs(script.client.watch("r", notice=told.append)) == [1, 2]
        assert script.after == [None, "1", "1"]
        assert [text.partition(";")[0] for text in told] == ["closed 1006 connection lost"] * 2


async def test_a_cut_after_the_runs_end_is_none():
    async def ends_and_goes(connection):
        await hello(connection)
        await connection.send(event(1))
        await connection.send(said("end", status="failed", lastSeq=1, hash=""))
        connection.transport.close()

    async with scripted(ends_and_goes) as script:
        watch = script.client.watch("r")
        assert await seqs(watch) == [1]
        assert (watch.status, script.pauses) == ("failed", [])


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (1008, 1008),
        (1009, 1009),
        (4400, 400),
        (4401, 401),
        (4403, 403),
        (4404, 404),
        (4410, 410),
        (4500, 4500),
    ],
)
async def test_a_close_that_says_stop_is_an_error(code, status):
    async with scripted(closes(1, code=code, reason="event 7 is damaged")) as script:
        watch = script.client.watch("r")
        with pytest.raises(Refused, match=f"{code} event 7 is damaged") as refused:
            await seqs(watch)
        assert refused.value.status == status
        assert watch.after == 1
        assert script.pauses == []


@pytest.mark.parametrize("status", [400, 404, 409, 421])
async def test_a_denial_says_what_the_service_said(status):
    async with scripted(denies(status, "No such thing.")) as script:
        with pytest.raises(Refused, match=r"^No such thing\.$") as refused:
            await seqs(script.client.watch("r"))
        assert refused.value.status == status
        assert len(script.asked) == 1


async def test_a_damaged_log_is_not_asked_again():
    async with scripted(denies(500, "Event 7 is damaged.")) as script:
        with pytest.raises(Unreachable, match="Event 7 is damaged"):
            await seqs(script.client.watch("r"))
        assert len(script.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_a_busy_service_is_given_the_time_it_asks_for(status):
    busy = denies(status, "Too many streams.", **{"Retry-After": "7"})
    async with scripted(busy, cut(1), busy, ends(2)) as script:
        assert await seqs(script.client.watch("r")) == [1, 2]
        first, second = Backoff().first_s, Backoff().first_s * 2
        for pause_s, least_s, longest_s in zip(script.pauses, (7, 0, 7), (first, first, second), strict=True):
            assert least_s <= pause_s <= least_s + longest_s


@pytest.mark.parametrize(
    ("said", "least_s"),
    [("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("-5", 0), ("nan", 0), ("99999", RETRY_AFTER_MAX_S)],
)
async def test_an_odd_retry_after_does_no_harm(said, least_s):
    async with scripted(denies(503, "No.", **{"Retry-After": said}), ends(1)) as script:
        assert await seqs(script.client.watch("r")) == [1]
        assert least_s <= script.pauses[0] <= least_s + Backoff().first_s


async def test_pauses_grow_at_random_and_end():
    backoff = Backoff(first_s=1.0, longest_s=8.0, attempts=300)
    async with scripted(cut(1), cut(), backoff=backoff) as script:
        with pytest.raises(Unreachable, match="given up after 300 attempts"):
            await seqs(script.client.watch("r"))
        assert len(script.asked) == 301
        for number, pause_s in enumerate(script.pauses):
            assert 0 <= pause_s <= min(8, 2**number)
        assert len(set(script.pauses)) == len(script.pauses) == 300
        assert max(script.pauses) > 4.0 > 1.0 > min(script.pauses[4:])  # full jitter


async def test_progress_forgives_earlier_losses():
    turns = [cut(seq) for seq in range(1, 16)]
    async with scripted(*turns, ends(16), backoff=Backoff(attempts=1)) as script:
        assert await seqs(script.client.watch("r")) == list(range(1, 17))
        assert max(script.pauses) <= Backoff().first_s


async def test_a_connection_that_lasted_forgives_too():
    """A run that says nothing for hours outlives any number of restarts of its service."""

    async def lasts(connection):
        await hello(connection)
        await asyncio.sleep(0.1)
        connection.transport.close()

    backoff = Backoff(first_s=0.01, longest_s=0.05, attempts=1)
    async with scripted(*[lasts] * 4, ends(1), backoff=backoff) as script:
        assert await seqs(script.client.watch("r")) == [1]
        assert len(script.asked) == 5


async def test_nobody_there_is_asked_again_and_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    client = Client(f"http://127.0.0.1:{port}", backoff=Backoff(attempts=3, sleep=sleep))
    told: list[str] = []
    with pytest.raises(
        Unreachable, match=rf"^http://127.0.0.1:{port} does not answer: connection refused; given"
    ):
        await seqs(client.watch("r", notice=told.append))
    assert len(pauses) == len(told) == 3


async def test_who_leaves_the_loop_can_go_on():
    async with scripted(ends(1, 2, 3), ends(3)) as script:
        watch = script.client.watch("r")
        async with aclosing(aiter(watch)) as events:
            async for each in events:
                if each.seq == 2:
                    break
        assert (watch.status, watch.after, watch.summary) == (None, 2, "2 events so far")
        assert await seqs(watch) == [3]
        assert watch.summary == "3 of 3 events"
        assert await seqs(watch) == []
        assert script.after == [None, "2"]


async def test_a_watch_of_new_events_resumes_where_it_began():
    """Lost before its first event, it must not take what came meanwhile for old."""

    async def begins_after_4(connection):
        await connection.send(said("hello", status="running", lastSeq=4, after=4))
        connection.transport.close()

    async with scripted(begins_after_4, ends(5, 6)) as script:
        watch = script.client.watch("r", after="tail")
        assert await seqs(watch) == [5, 6]
        assert script.after == ["tail", "4"]
        assert watch.summary == "2 of 2 events after event 4"


async def test_a_filtered_watch_resumes_behind_what_was_hidden():
    async def hides(connection):
        await hello(connection)
        await connection.send(event(3))
        await connection.send(said("bookmark", seq=2000))
        connection.transport.close()

    async with scripted(hides, ends(2500, last=3000)) as script:
        watch = script.client.watch("r", step_id="a", level="warn", types=["step_log"], wait_s=1.5)
        assert await seqs(watch) == [3, 2500]
        asked = {"control": "1", "types": "step_log", "stepId": "a", "level": "warn", "wait": "1500"}
        assert script.asked == [asked, {**asked, "after": "2000"}]
        assert watch.summary == "2 of 3000 events passed the filter"


async def test_history_ends_where_the_run_stood():
    async def stands(connection):
        await hello(connection)
        await connection.send(event(1))
        await connection.send(said("caught_up", seq=1))
        await connection.wait_closed()

    async with scripted(cut(), stands) as script:
        watch = script.client.watch("r", live=False)
        assert await seqs(watch) == [1]
        assert (watch.status, watch.summary) == (None, "1 events so far")


@pytest.mark.parametrize(
    "second", [ends(2, 3), ends(4), ends(3, 3), ends(1, 2, 3)], ids=["again", "gap", "twice", "all"]
)
async def test_what_is_not_the_next_event_is_refused_after_a_resume(second):
    async with scripted(cut(1, 2), second) as script:
        with pytest.raises(Inconsistent, match=r"event \d+ came"):
            await seqs(script.client.watch("r"))
        assert len(script.asked) == 2


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x?y", "", "http://x/a b", "http://u:p@x"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="is not an address such as"):
        Client(url)
