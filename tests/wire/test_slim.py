"""The small queue and event that each connection has: what asyncio's own promise must hold of them, too."""

import asyncio
import gc

from service.wire.slim import Flag, Mailbox


async def test_messages_come_in_order_and_once():
    box: Mailbox[int] = Mailbox()
    box.put_nowait(1)
    assert not box.empty()
    reader = asyncio.create_task(box.get())
    assert await reader == 1
    reader = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.put_nowait(2)
    box.put_nowait(3)
    assert [await reader, await box.get()] == [2, 3]
    assert box.empty()


async def test_a_reader_that_is_cancelled_has_taken_none():
    box: Mailbox[int] = Mailbox()
    reader = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.put_nowait(1)  # it is about to be woken
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()
    assert await box.get() == 1


async def test_a_flag_wakes_all_and_lets_nobody_wait_while_it_is_set():
    flag = Flag()
    waiting = [asyncio.create_task(flag.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    assert not any(task.done() for task in waiting)
    flag.set()
    await asyncio.gather(*waiting)
    await flag.wait()
    flag.clear()
    assert not flag.is_set()
    late = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    assert not late.done()
    flag.set()
    await late


async def test_a_flag_forgets_who_was_cancelled_and_wakes_who_came_after():
    flag = Flag()
    waiting = [asyncio.create_task(flag.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert not any(isinstance(each, list) for each in gc.get_referents(flag)), "it keeps a list of nobody"
    woken = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    flag.set()
    flag.clear()
    late = asyncio.create_task(flag.wait())
    await woken
    assert not late.done()
    flag.set()
    await late
