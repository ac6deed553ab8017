"""The event feed: one publisher, many browsers, none of them waited for."""

from __future__ import annotations

import asyncio

import pytest
from litestar.response import ServerSentEventMessage

from dashboard.live import MAX_LISTENERS, REMEMBERED, LiveFeed, LiveFull


async def test_every_browser_hears_each_name_once_however_slow_it_is() -> None:
    feed = LiveFeed(began=100)
    stream = feed.listen(since=100)
    hello = await anext(stream)

    for _ in range(5):
        feed.publish(frozenset({"queues", "workers"}), 101)
    names = [(await anext(stream)).event, (await anext(stream)).event]

    assert hello.event == "hello"
    assert names == ["queues", "workers"]


async def test_a_quiet_stream_sends_a_sign_of_life() -> None:
    feed = LiveFeed(began=100, heartbeat_s=0.01)
    stream = feed.listen(since=100)
    await anext(stream)

    beat = await anext(stream)

    assert beat.comment == "still here"


async def test_closing_ends_all_streams() -> None:
    feed = LiveFeed(began=100)
    streams = [feed.listen(since=100) for _ in range(3)]
    for stream in streams:
        await anext(stream)

    async def rest(stream: object) -> list[ServerSentEventMessage]:
        return [message async for message in stream]  # type: ignore[attr-defined]

    waiting = [asyncio.ensure_future(rest(stream)) for stream in streams]
    await asyncio.sleep(0)
    feed.close()

    assert await asyncio.gather(*waiting) == [[], [], []]
    assert feed.listeners == 0


async def test_too_many_browsers_are_told_to_poll() -> None:
    feed = LiveFeed(began=100)
    streams = [feed.listen(since=100) for _ in range(MAX_LISTENERS)]
    for stream in streams:
        await anext(stream)

    with pytest.raises(LiveFull):
        feed.listen(since=100)
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]

    feed.listen(since=100)


@pytest.mark.parametrize(
    ("since", "missed"),
    [
        (100, ["a", "b"]),
        (101, ["b"]),
        (102, []),
        (99, ["health"]),  # of a process before this one
        (None, ["health"]),
    ],
)
async def test_what_happened_before_the_stream_is_told_first(
    since: int | None, missed: list[str]
) -> None:
    feed = LiveFeed(began=100, heartbeat_s=0.01)
    feed.publish(frozenset({"a"}), 101)
    feed.publish(frozenset({"b"}), 102)
    stream = feed.listen(since)
    await anext(stream)

    heard = [(await anext(stream)).event for _ in missed]

    assert heard == missed
    assert (await anext(stream)).comment == "still here"


async def test_a_browser_that_was_away_too_long_hears_that_everything_changed() -> None:
    feed = LiveFeed(began=100)
    for version in range(101, 101 + REMEMBERED * 2):
        feed.publish(frozenset({"a"}), version)
    stream = feed.listen(since=150)
    await anext(stream)

    assert (await anext(stream)).event == "health"
