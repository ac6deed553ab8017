"""What operators do, as BullMQ's own clients did it: our key space after each recorded step.

The scenarios of test_recordings.py play add, take and finish; these play the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.golden.keyspace import KeySpace, Stored
from tests.golden.player import Player
from tickbird import Inspector, JobState, Removal
from tickbird.inspector import minute_counts
from tickbird.job import QueueRef

WITH_OWN_FILE = "../management/"
"""Recordings that only this module plays stand beside the others."""


@pytest.fixture
async def play(
    request: pytest.FixtureRequest, redis_url: str, prefix: str
) -> AsyncIterator[Player]:
    player = Player(request.param, redis_url, prefix)
    yield player
    await player.aclose()


def compared_all(play: Player) -> bool:
    return play.compared == play.labels


@pytest.mark.parametrize("play", ["add_delayed.v6"], indirect=True)
async def test_promoting_and_changing_a_delay(play: Player) -> None:
    play.step("three jobs delayed to the same millisecond")
    created_ms = play.time_of("1", "timestamp")
    for n, job_id in enumerate(["1", "2", "3"]):
        await play.add(job_id, "d", {"i": n}, delay="60s", timestamp_ms=created_ms)
    await play.compare()

    play.step("earlier delayed job, with priority")
    await play.add("4", "d", delay="30s", priority=7, timestamp_ms=created_ms)
    await play.compare()

    play.step("promote job 1")
    play.at(play.recorded.now_ms)
    assert await play.queue().promote(["1"]) == [True]
    await play.compare()

    play.step("promote job 4 (has priority)")
    assert await play.queue().promote(["4"]) == [True]
    await play.compare()

    play.step("changeDelay job 2")
    play.at(int(play.recorded.key_space()["q:delayed"].value["2"]) // 4096 - 90_000)
    assert await play.queue().change_delay("2", "90s")
    await play.compare()
    assert compared_all(play)


@pytest.mark.parametrize("play", ["prioritized.v6"], indirect=True)
async def test_changing_priorities(play: Player) -> None:
    def no_priority_is_not_stored(keys: KeySpace) -> None:
        del keys["q:5"].value["opts"]["priority"]

    why = "no priority is not written out"
    play.step("priorities 5,1,5,2097151,0")
    for n, priority in enumerate([5, 1, 5, 2_097_151, 0]):
        await play.add(str(n + 1), "p", {"p": priority}, priority=priority)
    await play.compare(but=no_priority_is_not_stored, why=why)

    for label, job_id, priority, lifo in (
        ("job 1 to 9", "1", 9, False),
        ("job 2 to 9, lifo", "2", 9, True),
        ("job 3 to 0", "3", 0, False),
    ):
        play.step(label)
        play.at(play.recorded.now_ms)
        assert await play.queue().change_priority(job_id, priority, lifo=lifo)
        await play.compare(but=no_priority_is_not_stored, why=why)


@pytest.mark.parametrize(
    "play", ["retry_completed_and_bulk.v5", "retry_completed_and_bulk.v6"], indirect=True
)
async def test_replaying_with_the_attempts_kept(play: Player) -> None:
    play.step("two completed, two failed")
    for n in range(4):
        await play.add(str(n + 1), "x", {"i": n}, priority=2 if n == 3 else 0)
    for job_id in ("1", "2", "3", "4"):
        await play.take(job_id)
        if job_id in "13":
            await play.complete(job_id, str(int(job_id) - 1))
        else:
            await play.fail(job_id, "odd")
    await play.compare()

    play.step("job 1 retried from completed")
    play.at(play.recorded.now_ms)
    replayed = await play.queue().replay(["1"], state=JobState.COMPLETED, reset_attempts=False)
    assert replayed == [True]
    await play.compare()

    def in_its_place(keys: KeySpace) -> None:
        keys["q:wait"].value.remove("4")
        keys["q:prioritized"] = Stored("zset", {"4": 2 * 2.0**32 + 2})
        keys["q:pc"].value = "2"

    play.step("retryJobs(failed) in bulk")
    assert await play.queue().replay_all(reset_attempts=False) == 2
    await play.compare(but=in_its_place, why="replayed jobs keep their priority also in bulk")
    assert compared_all(play)


@pytest.mark.parametrize(
    "play",
    [
        f"{WITH_OWN_FILE}remove_clean_drain_obliterate.v5",
        f"{WITH_OWN_FILE}remove_clean_drain_obliterate.v6",
    ],
    indirect=True,
)
async def test_removing_cleaning_draining_obliterating(play: Player) -> None:
    queue = play.queue()
    play.step("remove ja")
    await play.add("ja", "a", job_id="ja")
    await play.add("2", "b", delay=99.999)
    await play.add("3", "c", priority=2)
    await _put_family(play)
    assert await queue.remove(["ja"]) == [Removal.REMOVED]
    await play.compare(both=_without_prefix)

    play.step("remove P1 with children")
    assert await queue.remove(["P1"]) == [Removal.REMOVED]
    await play.compare()

    play.step("clean completed")
    play.at(play.recorded.now_ms - 60)
    await queue.add("d")
    await play.take("6")
    await play.complete("6", "1")
    assert await queue.clean(JobState.COMPLETED) == 1
    await play.compare()

    play.step("drain (keeps delayed)")
    await queue.add("e")
    assert await queue.drain() == 2
    await play.compare()

    play.step("drain with delayed")
    assert await queue.drain(delayed=True) == 1
    await play.compare()

    play.step("obliterate")
    await queue.add("f")
    await queue.pause()
    assert await queue.obliterate() == 1
    await play.compare()
    assert compared_all(play)


async def _put_family(play: Player) -> None:
    """The flow of the recording, stored as it is there."""
    recorded = play.recorded.keys
    for job_id in ("P1", "C1"):
        await play.redis.hset(play.key(f"q:{job_id}"), mapping=recorded[f"q:{job_id}"]["value"])
    parent_key = play.key("q:P1")
    await play.redis.hset(play.key("q:C1"), "parentKey", parent_key)
    await play.redis.sadd(f"{parent_key}:dependencies", play.key("q:C1"))
    await play.redis.zadd(
        play.key("q:waiting-children"), {"P1": recorded["q:P1"]["value"]["timestamp"]}
    )
    await play.redis.lpush(play.key("q:wait"), "C1")
    await play.redis.incrby(play.key("q:id"), 2)
    for event in recorded["q:events"]["value"][6:10]:
        await play.emit(**event["fields"])


def _without_prefix(keys: KeySpace) -> None:
    """Relations hold whole keys."""
    del keys["q:C1"].value["parentKey"]
    keys["q:P1:dependencies"].value = [
        key.rpartition(":")[2] for key in keys["q:P1:dependencies"].value
    ]


@pytest.mark.parametrize("play", [f"{WITH_OWN_FILE}metrics.v6"], indirect=True)
async def test_counts_by_minute_are_read_as_recorded(play: Player) -> None:
    """Each count stands in the minute it happened in, whenever one looks."""
    for label in play.labels[:-1]:  # the last one moves what is older than the list is long
        play.step(label)
        for kind in ("completed", "failed"):
            ends_ms = [int(entry["score"]) for entry in _recorded(play, kind, [])]
            counters = _recorded(play, f"metrics:{kind}", {})
            for later_ms in (0, 60_000, 3 * 60_000):
                now_ms = play.recorded.now_ms + later_ms

                total, counts = minute_counts(
                    [counters.get(name, "").encode() or None for name in _COUNTERS],
                    [count.encode() for count in _recorded(play, f"metrics:{kind}:data", [])],
                    now_ms,
                )

                assert total == len(ends_ms)
                for ago, count in enumerate(counts):
                    minute = now_ms // 60_000 - ago
                    assert count == sum(end_ms // 60_000 == minute for end_ms in ends_ms)


_COUNTERS = ("count", "prevTS", "prevCount")


def _recorded(play: Player, suffix: str, otherwise: Any) -> Any:
    return play.recorded.keys.get(f"q:{suffix}", {"value": otherwise})["value"]


@pytest.mark.parametrize("play", ["registration.v5", "registration.v6"], indirect=True)
async def test_workers_are_found_by_their_connections(play: Player) -> None:
    inspector = Inspector(play.url)
    queue = QueueRef("my queue é", play.prefix)
    clients = []
    for name in play.facts["clientNames"]:
        client = play.redis.client()
        await client.initialize()
        await client.client_setname(name.replace("bull", play.prefix, 1))
        clients.append(client)

    found = await inspector.list_workers(queue)

    assert found.ours == ()
    assert sorted(worker.name for worker in found.foreign) == ["", "alpha"]
    for client in clients:
        await client.aclose()
    await inspector.aclose()
