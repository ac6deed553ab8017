"""Our key space after each recorded step of BullMQ's own clients.

Each scenario repeats its recording with our calls. Every step of every recording is compared, or
stands in OUT_OF_SCOPE with the reason; what we do otherwise on purpose is said where it is compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.conftest import running
from tests.golden.keyspace import KeySpace, Stored
from tests.golden.player import RECORDINGS, Edit, Player
from tickbird import (
    App,
    Backoff,
    Cron,
    Dedup,
    Every,
    FlowNode,
    JobState,
    Keep,
    Parent,
    QueueRef,
    Worker,
)
from tickbird.context import Context
from tickbird.flow import OnFailure
from tickbird.storage.keys import QueueKeys, queue_of_client

OUT_OF_SCOPE = {
    ("add_standard.v6", "queue object created (only meta is written)"):
        "our Queue writes nothing before its first call",
    ("registration.v5", "two workers and one events listener"):
        "its queue has a name we refuse; the names of connections are compared",
    ("registration.v6", "two workers and one events listener"):
        "its queue has a name we refuse; the names of connections are compared",
}  # fmt: skip

METRICS = "../management/metrics.v6"
"""Is read by test_management.py; here it is played."""

Scenario = Callable[[Player], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def plays(*recordings: str) -> Callable[[Scenario], Scenario]:
    """This function repeats these recordings."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.update(dict.fromkeys(recordings, scenario))
        return scenario

    return register


@pytest.fixture
async def player(
    request: pytest.FixtureRequest, redis_url: str, prefix: str
) -> AsyncIterator[Player]:
    player = Player(request.param, redis_url, prefix)
    yield player
    await player.aclose()


@pytest.mark.parametrize(
    "player", [*sorted(path.stem for path in RECORDINGS.iterdir()), METRICS], indirect=True
)
async def test_our_key_space_equals_the_recording(
    player: Player, request: pytest.FixtureRequest
) -> None:
    recording = request.node.callspec.params["player"]

    await SCENARIOS[recording](player)

    listed = [label for label in player.labels if (recording, label) in OUT_OF_SCOPE]
    assert sorted([*player.compared, *listed]) == sorted(player.labels)


def test_what_is_listed_as_out_of_scope_is_recorded() -> None:
    labels = {(path.stem, label) for path in RECORDINGS.iterdir() for label in _labels(path.stem)}

    assert set(OUT_OF_SCOPE) <= labels


def _labels(recording: str) -> list[str]:
    return Player(recording, "redis://unused", "unused").labels


# --- adding -------------------------------------------------------------------


@plays("add_standard.v6")
async def add_standard(play: Player) -> None:
    play.step("add, no options")
    await play.add("1", "mail", {"to": "a@example.org"})
    await play.compare()

    play.step("add with custom id and options")
    await play.add(
        "order-2", "mail", {"n": 2}, job_id="order-2", attempts=3,
        backoff=Backoff("fixed", "1s", jitter=0), keep_completed=False, keep_failed=50,
    )  # fmt: skip
    await play.compare(but=_without_node_options, why="no option of ours is stored under these")

    play.step("add lifo")
    await play.add("3", "mail", {"n": 3}, lifo=True)
    await play.compare(but=_without_node_options, why="as before")

    play.step("same custom id again: duplicated")
    await play.add("order-2", "mail", {"n": 99}, job_id="order-2")
    await play.compare(but=_without_node_options, why="as before")

    play.step("addBulk of three")
    play.at(play.time_of("5", "timestamp"))
    await play.queue().add_many([("b", 1), ("b", []), ("b", msgspec.UNSET)])
    await play.compare(but=_without_node_options, why="as before")


def _without_node_options(keys: KeySpace) -> None:
    for option in ("kl", "stackTraceLimit", "sizeLimit"):
        del keys["q:order-2"].value["opts"][option]


@plays("add_delayed.v6")
async def add_delayed(play: Player) -> None:
    play.step("three jobs delayed to the same millisecond")
    created_ms = play.time_of("1", "timestamp")
    for n, job_id in enumerate(["1", "2", "3"]):
        await play.add(job_id, "d", {"i": n}, delay="60s", timestamp_ms=created_ms)
    await play.compare()

    play.step("earlier delayed job, with priority")
    await play.add("4", "d", delay="30s", priority=7, timestamp_ms=created_ms)
    await play.compare()

    for label, job_id in [("promote job 1", "1"), ("promote job 4 (has priority)", "4")]:
        play.step(label)
        assert await play.queue().promote([job_id]) == [True]
        await play.compare()

    play.step("changeDelay job 2")
    play.at(play.due_ms("2") - 90_000)
    assert await play.queue().change_delay("2", "90s")
    await play.compare()


@plays("prefix_hashtag.v6")
async def prefix_hashtag(play: Player) -> None:
    play.prefix = f"{{{play.prefix}}}"
    play.step("custom prefix with hash tag")
    await play.add("1", "a")
    play.at(play.time_of("P1", "timestamp"))
    child = FlowNode(queue="q2", name="C", options={"job_id": "C1"})
    await play.queue().add_flow(
        FlowNode(queue="q", name="P", options={"job_id": "P1"}, children=[child])
    )
    await play.compare(but=_without_our_prefix(play), why="the test's prefix is in the relations")


def _without_our_prefix(play: Player) -> Edit:
    """What names keys of its family names ours."""

    def edit(keys: KeySpace) -> None:
        child = keys["q2:C1"].value
        child["parentKey"] = play.key("q:P1")
        child["parent"]["queueKey"] = child["opts"]["parent"]["queue"] = play.key("q")
        keys["q:P1:dependencies"].value = [play.key("q2:C1")]

    return edit


# --- taking and finishing -------------------------------------------------------


@plays("prioritized.v6")
async def prioritized(play: Player) -> None:
    play.step("priorities 5,1,5,2097151,0")
    for n, priority in enumerate([5, 1, 5, 2_097_151, 0]):
        await play.add(str(n + 1), "p", {"p": priority}, priority=priority)
    await play.compare(but=_without_zero, why=_ZERO)

    play.step("job 1 to 9")
    assert await play.queue().change_priority("1", 9)
    await play.compare(but=_without_zero, why=_ZERO)

    play.step("job 2 to 9, lifo")
    assert await play.queue().change_priority("2", 9, lifo=True)
    await play.compare(but=_without_zero, why=_ZERO)

    play.step("job 3 to 0")
    assert await play.queue().change_priority("3", 0)
    await play.compare(but=_without_zero, why=_ZERO)

    play.step("all taken and completed one by one (order in takeOrder)")
    for job_id in play.facts["takeOrder"]:
        await play.take(job_id)
        await play.complete(job_id, '"x"')
    await play.take(None)
    await play.compare(but=_without_zero, why=_ZERO)


_ZERO = "no priority is not written out in opts"


def _without_zero(keys: KeySpace) -> None:
    del keys["q:5"].value["opts"]["priority"]


@plays("process_one.v6")
async def process_one(play: Player) -> None:
    play.step("before")
    await play.add("1", "mail", {"a": 1})
    await play.compare()

    play.step("taken (token tok:1)")
    await play.take("1", worker="w-one")
    await play.compare()

    play.step("progress, logs, data")
    context = Context(play.taken("1"), play.queue(), asyncio.get_running_loop())
    await context.progress(40)
    await context.progress({"pct": 80})
    await context.log("line 1")
    await context.log("line 2")
    await context.update_data({"a": 2})
    await play.compare()

    play.step("lock extended to 60 s")
    await play.renew("1", lock_ms=60_000)
    await play.compare()

    play.step("completed")
    await play.complete("1", '{"ok":true}')
    await play.compare()

    play.step("second job completed with undefined, fetch next (none)")
    await play.add("2", "mail")
    await play.take("2", worker="w-one")
    await play.complete("2", "null")
    await play.compare()


@plays("worker_loop.v6")
async def worker_loop(play: Player) -> None:
    app = App(redis=play.url, prefix=play.prefix)

    @app.task(name="x", queue="q")
    async def double(n: int) -> int:
        return n * 2

    why = "while one of ours lives, it judges: two checks of five seconds at a time"

    def our_turn(keys: KeySpace) -> None:
        keys["q:stalled-check"].ttl_ms = 10_000

    async with running(Worker(app, queues=("q",), concurrency=2, name="loop")):
        play.step("idle worker, nothing added")
        await play.compare(but=our_turn, why=why, both=_without_times, within_s=5)

        play.step("three jobs processed by a running worker")
        await app.queue("q").add_many([("x", {"n": n}) for n in range(3)])
        await play.compare(but=our_turn, why=why, both=_without_times, within_s=5)
    await app.aclose()


def _without_times(keys: KeySpace) -> None:
    """The clock runs, and two slots of a worker tell their events in any order."""
    for stored in keys.values():
        if stored.type == "hash":
            for field in {"timestamp", "processedOn", "finishedOn"} & stored.value.keys():
                stored.value[field] = "(time)"
    if "q:stalled-check" in keys:
        keys["q:stalled-check"].value = "(time)"
    if "q:completed" in keys:
        keys["q:completed"].value = dict.fromkeys(keys["q:completed"].value, 0)
    if "q:events" in keys:
        keys["q:events"].value.sort(key=str)


@plays("failed_backoff.v5", "failed_backoff.v6")
async def failed_backoff(play: Player) -> None:
    play.step("1st failure (delay 200)")
    await play.add("1", "x", attempts=3, backoff=Backoff("exponential", 0.2, jitter=0))
    await play.take("1")
    await play.retry("1", "first", delay_ms=200)
    await play.compare()

    play.step("taken again")
    await play.take("1")
    await play.compare()

    play.step("2nd failure (delay 400)")
    await play.retry("1", "second", delay_ms=400)
    await play.compare()

    play.step("3rd failure: failed set")
    await play.take("1")
    await play.fail("1", "third", attempts=3)
    await play.compare()

    play.step("retry from failed")
    await play.replay("1", state=JobState.FAILED, reset_attempts=False)
    await play.compare()

    play.step("failed again (attempts not reset)")
    await play.take("1")
    await play.fail("1", "fourth", attempts=3)
    await play.compare()

    play.step("retry with both resets")
    await play.replay("1", state=JobState.FAILED)
    await play.compare()


@plays("failed_immediate_retry.v6")
async def failed_immediate_retry(play: Player) -> None:
    play.step("retry without delay (job 1)")
    await play.add("1", "a", attempts=2)
    await play.add("2", "b", attempts=2, priority=4)
    await play.add("3", "c", attempts=5)
    await play.take("1")
    await play.retry("1", "no backoff")
    await play.compare()

    play.step("unrecoverable: job 3 straight to failed")
    await play.take("3")
    await play.fail("3", "give up", attempts=5)
    await play.compare()

    play.step("retry without delay, prioritized (job 2)")
    await play.take("1")
    await play.take("2")
    await play.retry("2", "prio")
    await play.compare()


_KEEP = {
    "keepall": None,
    "true": False,
    "count2": Keep(count=2),
    "num1": 1,
    "age1": Keep(age="1s"),
    "false": True,
}


@plays("remove_on_complete.v6")
async def remove_on_complete(play: Player) -> None:
    play.step("four jobs completed under each variant")
    for variant, keep in _KEEP.items():
        queue = f"roc-{variant}"
        for n in range(4):
            await play.add(str(n + 1), "x", {"i": n}, queue=queue, keep_completed=keep)
            await play.take(str(n + 1), queue=queue)
            await play.complete(str(n + 1), str(n), queue=queue)

    def limit_is_not_ours(keys: KeySpace) -> None:
        del keys["roc-age1:4"].value["opts"]["removeOnComplete"]["limit"]

    await play.compare(but=limit_is_not_ours, why="Keep has no limit per call")


# --- replay -------------------------------------------------------------------


@plays("retry_completed_and_bulk.v5", "retry_completed_and_bulk.v6")
async def retry_completed_and_bulk(play: Player) -> None:
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
    await play.replay("1", state=JobState.COMPLETED, reset_attempts=False)
    await play.compare()

    def all_are_new_and_in_their_place(keys: KeySpace) -> None:
        for key in ("q:2", "q:4"):
            del keys[key].value["atm"], keys[key].value["ats"]
        keys["q:wait"].value.remove("4")
        keys["q:prioritized"] = Stored("zset", {"4": 2 * 2.0**32 + 2})
        keys["q:pc"].value = "2"

    play.step("retryJobs(failed) in bulk")
    await play.replay("2", "4", state=JobState.FAILED)
    await play.compare(
        but=all_are_new_and_in_their_place,
        why="replayed jobs are new, and keep their priority also in bulk",
    )


# --- stalled ------------------------------------------------------------------


@plays("stalled.v6")
async def stalled(play: Player) -> None:
    lock_ms = 30_000
    why = "deadlines are in a key of ours, and each of us looks when it likes"

    def no_marks(keys: KeySpace) -> None:
        for key in ("q:stalled", "q:stalled-check"):
            keys.pop(key, None)

    play.step("1st check: active ids are marked")
    await play.add("1", "x")
    await play.add("2", "y")
    await play.take("1")
    await play.take("2")
    first_ms = play.time_of("1", "processedOn")
    await play.compare(but=no_marks, why=why, both=_without_lock_ends)

    play.step("check inside the interval: throttled; job 2 extended its lock")
    await play.renew("2", lock_ms=lock_ms, at_ms=first_ms + lock_ms - 1_000)
    assert await play.recover(at_ms=first_ms + lock_ms - 1) == []
    await play.compare(but=no_marks, why=why, both=_without_lock_ends)

    play.step("next check: job 1 stalled once, back to wait")
    assert await play.recover(at_ms=first_ms + lock_ms) == ["1"]
    await play.compare(but=no_marks, why=why, both=_without_lock_ends)

    play.step("stalled again: over the limit, deferred failure")
    await play.take("1")
    again_ms = play.time_of("1", "processedOn")
    assert await play.recover(at_ms=again_ms + lock_ms, allowed_stalls=1) == ["1"]
    await play.compare(but=no_marks, why=why, both=_without_lock_ends)

    play.step("a running worker met it: failed without running")
    job = await play.take("1")
    assert job is not None
    await play.redis.zpopmin(play.key("q:marker"))  # as the worker recorded there, gone idle
    assert job.deferred_failure == "job stalled more than allowable limit"
    await play.fail("1", job.deferred_failure)
    await play.compare(but=no_marks, why=why, both=_without_lock_ends)


def _without_lock_ends(keys: KeySpace) -> None:
    """The recorded locks lasted 300 ms, which a slow test would not survive."""
    for key, stored in keys.items():
        if key.endswith(":lock"):
            stored.ttl_ms = None


# --- pause --------------------------------------------------------------------


@plays("paused.v6")
async def paused_by_us(play: Player) -> None:
    play.step("paused with 1 waiting, 1 prioritized, 1 delayed")
    await _add_three(play)
    await play.queue().pause()
    await play.compare()

    await _add_and_take_while_paused(play)

    play.step("resumed")
    await play.queue().resume()
    await play.compare()


@plays("paused.v5")
async def paused_by_us_among_older_clients(play: Player) -> None:
    play.step("paused with 1 waiting, 1 prioritized, 1 delayed")
    await play.redis.hset(play.key("q:meta"), "version", play.facts["client"].replace(" ", ":"))
    await _add_three(play)
    await play.queue().pause()
    await play.compare()

    await _add_and_take_while_paused(play)

    play.step("resumed")
    await play.queue().resume()
    await play.compare()


async def _add_three(play: Player) -> None:
    await play.add("1", "a")
    await play.add("2", "b", priority=1)
    await play.add("3", "c", delay="100s")


async def _add_and_take_while_paused(play: Player) -> None:
    play.step("added while paused")
    await play.add("4", "d")
    await play.add("5", "e", priority=2)
    await play.compare()

    play.step("take attempt while paused")
    await play.take(None)
    await play.compare()


async def _older_client_pauses(play: Player) -> None:
    await play.redis.rename(play.key("q:wait"), play.key("q:paused"))
    await play.redis.hset(play.key("q:meta"), "paused", 1)
    await play.redis.delete(play.key("q:marker"))
    await play.emit(event="paused")


@plays("mixed_pause_v5_v6.v6")
async def mixed_pause(play: Player) -> None:
    why = "we add where an older client looks on resume: job 3 is not lost"
    lists = ("q:wait", "q:paused")

    def with_lists(wait: list[str], paused: list[str]) -> Callable[[KeySpace], None]:
        def edit(keys: KeySpace) -> None:
            for key, ids in zip(lists, (wait, paused), strict=True):
                keys.pop(key, None)
                if ids:
                    keys[key] = Stored("list", ids)

        return edit

    play.step("older client paused: wait renamed to paused")
    await play.redis.hset(play.key("q:meta"), "version", "bullmq:5.81.5")
    await play.add("1", "a")
    await play.add("2", "b")
    await _older_client_pauses(play)
    await play.compare()

    play.step("newer client adds while paused: goes to wait")
    await play.add("3", "c")
    await play.compare(but=with_lists([], ["3", "2", "1"]), why=why)

    play.step("older client resumes: rename overwrites wait, job 3 is in no list any more")
    await play.redis.rename(play.key("q:paused"), play.key("q:wait"))
    await play.redis.hdel(play.key("q:meta"), "paused")
    await play.redis.zadd(play.key("q:marker"), {"0": 0})
    await play.emit(event="resumed")
    await play.compare(but=with_lists(["3", "2", "1"], []), why=why)

    play.step("paused by the older, one more added by the newer")
    await _older_client_pauses(play)
    await play.add("4", "d")
    await play.compare(but=with_lists([], ["4", "3", "2", "1"]), why=why)

    play.step("newer client resumes: both lists merged, nothing lost")
    await play.queue().resume()
    await play.compare(but=with_lists(["4", "3", "2", "1"], []), why=why)

    play.step("paused by the newer, older adds to paused")
    await play.queue().pause()  # as the older do: they rename `paused` over `wait` on resume
    await play.as_recorded("q:5", "q:id")
    await play.redis.lpush(play.key("q:paused"), "5")
    await play.emit(event="added", jobId="5", name="e")
    await play.emit(event="waiting", jobId="5")
    await play.compare(but=with_lists([], ["5", "4", "3", "2", "1"]), why=why)

    play.step("newer resumes: merged")
    await play.queue().resume()
    await play.compare(but=with_lists(["5", "4", "3", "2", "1"], []), why=why)


# --- limits -------------------------------------------------------------------


@plays("global_concurrency.v6")
async def global_concurrency(play: Player) -> None:
    play.step("limit 1: one active, second refused, third added while maxed")
    await play.queue().set_global_concurrency(1)
    await play.add("1", "a")
    await play.add("2", "b")
    await play.take("1", wanted=2)
    await play.take(None)
    await play.add("3", "c")
    await play.compare()

    play.step("completed with fetch next: next one taken")
    await play.complete("1", "1", then_take="2")
    await play.compare()


@plays("rate_limited.v5", "rate_limited.v6")
async def rate_limited(play: Player) -> None:
    limit = {"max": 2, "duration": 60_000}

    play.step("1st take under limiter max 2 / 60 s")
    for n in range(4):
        await play.add(str(n + 1), "x", {"i": n})
    await play.take("1", limits=limit)
    await play.compare()

    play.step("2nd take, 3rd refused")
    await play.take("2", wanted=2, limits=limit)
    await play.take(None, limits=limit)
    await play.compare()

    play.step("queue.rateLimit(30000) then job 2 put back to wait")
    await play.queue().rate_limit("30s")
    await play.hand_back("2")
    await play.compare()

    play.step("global rate limit in meta")
    await play.queue().set_global_rate_limit("5/10s")
    await play.compare()


# --- metrics --------------------------------------------------------------------


@plays(METRICS)
async def metrics(play: Player) -> None:
    kept = {"data_points": 5}

    async def completed(job_id: str) -> None:
        await play.add(job_id, "x")
        await play.take(job_id, limits=kept)
        await play.complete(job_id, "1")

    async def failed(job_id: str) -> None:
        await play.add(job_id, "x")
        await play.take(job_id, limits=kept)
        await play.fail(job_id, "m")

    for label, jobs in (
        ("first completion", [(completed, "1")]),
        ("second completion and a failure in the same minute", [(completed, "2"), (failed, "3")]),
        ("one minute later", [(completed, "4")]),
        ("four more minutes later", [(completed, "5"), (failed, "6")]),
        ("25 minutes later (more than maxDataPoints)", [(completed, "7")]),
    ):
        play.step(label)
        for end, job_id in jobs:
            await end(job_id)
        await play.compare()


# --- flows ----------------------------------------------------------------------


@plays("flow.v5", "flow.v6")
async def flow(play: Player) -> None:
    play.step("flow added")
    play.at(play.time_of("P1", "timestamp", "parents"))
    play.queue("kids")
    kids = [
        _member("K1", data={"c": 1}),
        _member("K2", data={"c": 2}, options={"priority": 3}),
    ]
    await play.queue("parents").add_flow(_member("P1", data={"p": 1}, children=kids))
    await play.compare(both=_as_family(play))

    for label, job_id, result in (
        ("first child completed", "K1", '{"v":1}'),
        ("second child completed: parent released", "K2", '{"v":2}'),
    ):
        play.step(label)
        await play.take(job_id, queue="kids")
        await play.complete(job_id, result, queue="kids")
        await play.compare(both=_as_family(play))

    play.step("parent completed")
    await play.take("P1", queue="parents")
    await play.complete("P1", '"done"', queue="parents")
    await play.compare(both=_as_family(play))


_CHILD_FAILS: dict[str, OnFailure | None] = {
    "flow_child_fails_continueParentOnFailure.v6": "continue_parent",
    "flow_child_fails_failParentOnFailure.v6": "fail_parent",
    "flow_child_fails_ignoreDependencyOnFailure.v6": "ignore",
    "flow_child_fails_none.v6": None,
    "flow_child_fails_removeDependencyOnFailure.v6": "remove",
}


@plays(*_CHILD_FAILS)
async def flow_child_fails(play: Player) -> None:
    on_failure = _CHILD_FAILS[f"{play.facts['scenario']}.v6"]
    play.step("flow added")
    play.at(play.time_of("P1", "timestamp", "parents"))
    play.queue("kids")
    children = [_member("K1", on_failure=on_failure), _member("K2")]
    await play.queue("parents").add_flow(_member("P1", children=children))
    await play.compare(both=_as_family(play))

    play.step("child K1 failed")
    await play.take("K1", queue="kids")
    await play.fail("K1", "kid broke", queue="kids")
    await play.compare(both=_as_family(play))

    play.step("child K2 completed")
    await play.take("K2", queue="kids")
    await play.complete("K2", "1", queue="kids")
    await play.compare(both=_as_family(play))

    if on_failure != "fail_parent":
        return
    play.step("a running worker met the parent: failed without running")
    job = await play.take("P1", queue="parents")
    await play.workers_are_idle("parents")
    assert job is not None
    assert job.deferred_failure == f"child {play.key('kids:K1')} failed"
    await play.fail("P1", job.deferred_failure, queue="parents")
    await play.compare(
        but=_without_check,
        why="no worker of ours runs here",
        both=_as_family(play),
    )


def _member(job_id: str, *, options: Any = None, **more: Any) -> FlowNode:
    """A job of the recorded families."""
    queue, name = ("parents", "P") if job_id == "P1" else ("kids", "C")
    return FlowNode(queue=queue, name=name, options={"job_id": job_id, **(options or {})}, **more)


def _as_family(play: Player) -> Edit:
    """With the recorded names, and all members added at once: Node's clock may tick meanwhile."""

    def edit(keys: KeySpace) -> None:
        play.with_recorded_prefix(keys)
        parent_ms = int(keys["parents:P1"].value["timestamp"])
        for key in ("kids:K1", "kids:K2"):
            if int(keys[key].value["timestamp"]) - parent_ms <= 1:
                keys[key].value["timestamp"] = str(parent_ms)

    return edit


# --- steering -------------------------------------------------------------------


@plays("manual_moves.v6")
async def manual_moves(play: Player) -> None:
    play.step("moveToDelayed from the processor (attempt not counted)")
    await play.add("1", "delay-me", attempts=3)
    await play.add("2", "wait-me", priority=3)
    await play.add("3", "parent")
    await play.take("1")
    await play.postpone("1", 50_000)
    await play.compare()

    play.step("child added to an active job")
    await play.take("3")
    play.at(play.time_of("kid1", "timestamp"))
    parent = Parent(queue=play.queue().ref, job_id="3")
    await play.queue().add_child(parent, "kid", job_id="kid1")
    await play.compare(both=play.with_recorded_prefix)

    play.step("moveToWaitingChildren")
    await play.wait_for_children("3")
    await play.compare(both=play.with_recorded_prefix)

    play.step("child completed: parent back to wait (front)")
    await play.take("kid1")
    await play.complete("kid1", "7")
    await play.compare(both=play.with_recorded_prefix)

    play.step("moveToWait of the prioritized job")
    await play.take("3")
    await play.take("2")
    await play.hand_back("2")
    await play.compare(both=play.with_recorded_prefix)


# --- deduplication --------------------------------------------------------------


@plays("dedup.v5", "dedup.v6")
async def dedup(play: Player) -> None:
    is_older = "5." in play.facts["client"]

    def said_once(keys: KeySpace) -> None:
        events = keys["q:events"].value
        keys["q:events"].value = [event for event in events if event["event"] != "debounced"]

    async def compare() -> None:
        if is_older:
            await play.compare(but=said_once, why="older clients tell of each under two names")
        else:
            await play.compare()

    async def finds(owner: str, name: str, n: int, by: Dedup) -> None:
        handle = await play.queue().add(name, {"n": n}, dedup=by)
        assert (handle.id, handle.created) == (owner, False)

    play.step("simple mode, second ignored")
    await play.add("1", "s", {"n": 1}, dedup="simple")
    await finds("1", "s", 2, Dedup("simple"))
    await compare()

    play.step("throttle mode (ttl)")
    throttle = Dedup("thr", ttl="60s")
    await play.add("3", "t", {"n": 1}, dedup=throttle)
    await finds("3", "t", 2, throttle)
    await compare()

    debounce = Dedup("deb", ttl="60s", extend=True, replace=True)
    play.step("debounce mode, first")
    await play.add("5", "d", {"n": 1}, dedup=debounce, delay="60s")
    await (play.compare() if not is_older else compare())

    play.step("debounce mode, second replaces first")
    await play.add("6", "d", {"n": 2}, dedup=debounce, delay="60s")
    await compare()

    play.step("simple and throttled jobs completed: only the key without ttl goes")
    for job_id in ("1", "3"):
        await play.take(job_id)
    for job_id in ("1", "3"):
        await play.complete(job_id, "1")
    await compare()

    play.step("keepLastIfActive: two adds while active")
    last = Dedup("last", keep_last=True)
    await play.add("7", "k", {"n": 1}, dedup=last)
    await play.take("7")
    await finds("7", "k", 2, last)
    await finds("7", "k", 3, last)
    await compare()

    play.step("active one finished: last proposal becomes a job")
    await play.complete("7", "1")
    await compare()


# --- schedules ------------------------------------------------------------------

_OUR_TEMPLATE = "a schedule's jobs are added as all of ours, and no worker of ours runs here"


@plays("scheduler_every.v5", "scheduler_every.v6")
async def scheduler_every(play: Player) -> None:
    first, third, second, fourth = (f"repeat:tick:{due}" for due in _due_times(play, "tick"))
    play.step("upsert every 2000")
    play.at(play.time_of(first, "timestamp"))
    tick = Every("2s")
    await play.queue().schedules.upsert(
        "tick", "tick-job", {"k": 1}, when=tick, keep_completed=False, attempts=2
    )
    await play.compare(both=play.with_one_timestamp)

    play.step("first iteration taken: next one scheduled")
    await play.take(first)
    await play.iterate(first, at_ms=play.time_of(second, "timestamp"))
    await play.complete(first, "1", then_none=True)
    await play.workers_are_idle("q")
    await play.compare(
        but=_without_check, why="no worker of ours runs here", both=play.with_one_timestamp
    )

    play.step("upsert with another interval, limit 5")
    play.at(play.time_of(third, "timestamp"))
    await play.queue().schedules.upsert("tick", "tick-job", {"k": 2}, when=Every("60s"), limit=5)
    await play.take(third)
    await play.iterate(third, at_ms=play.time_of(fourth, "timestamp"))
    await play.complete(third, "1", then_none=True)
    await play.workers_are_idle("q")

    def with_template(keys: KeySpace) -> None:
        _without_check(keys)
        keys["q:repeat:tick"].value["opts"] = {"attempts": 0}
        keys[f"q:{third}"].value["opts"]["attempts"] = 0
        keys[f"q:{third}"].value.pop("nrjid", None)

    await play.compare(but=with_template, why=_OUR_TEMPLATE, both=play.with_one_timestamp)

    play.step("scheduler removed")
    assert await play.queue().schedules.remove("tick")
    await play.workers_are_idle("q")

    def with_job(keys: KeySpace) -> None:
        _without_check(keys)
        keys[f"q:{third}"].value["opts"]["attempts"] = 0
        keys[f"q:{third}"].value.pop("nrjid", None)

    await play.compare(but=with_job, why=_OUR_TEMPLATE, both=play.with_one_timestamp)


@plays("scheduler_cron.v5", "scheduler_cron.v6")
async def scheduler_cron(play: Player) -> None:
    (night,) = (f"repeat:night:{due}" for due in _due_times(play, "night"))
    first, second, third = (f"repeat:soon:{due}" for due in _due_times(play, "soon"))

    def with_our_words(keys: KeySpace) -> None:
        keys.pop("q:stalled-check", None)
        keys["q:repeat:night"].value["opts"] = {"attempts": 0}
        keys[f"q:{night}"].value["opts"]["attempts"] = 0
        if "q:repeat:soon" in keys:
            keys["q:repeat:soon"].value |= {"opts": {"attempts": 0}, "tz": "UTC"}
        for key in (first, second, third):
            if f"q:{key}" in keys:
                keys[f"q:{key}"].value.pop("nrjid", None)
                opts = keys[f"q:{key}"].value["opts"]
                opts["attempts"] = 0
                opts["repeat"]["tz"] = "UTC"

    why = f"{_OUR_TEMPLATE}; a time zone is always named; no iteration names the next"
    play.step("upsert cron with tz and endDate")
    play.at(play.time_of(night, "timestamp"))
    end_ms = int(play.recorded.keys["q:repeat:night"]["value"]["endDate"])
    await play.queue().schedules.upsert(
        "night", "night", {"k": 1}, when=Cron("0 30 3 * * *", "Europe/Rome"),
        end=datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=end_ms),
    )  # fmt: skip
    await play.compare(but=with_our_words, why=why, both=play.with_one_timestamp)

    play.step("upsert cron every 2 s")
    play.at(play.time_of(first, "timestamp"))
    await play.queue().schedules.upsert("soon", "s", when=Cron("*/2 * * * * *"))
    await play.compare(but=with_our_words, why=why, both=play.with_one_timestamp)

    play.step("two iterations run")
    for job_id, following in ((first, second), (second, third)):
        await play.take(job_id)
        await play.iterate(job_id, at_ms=play.time_of(following, "timestamp"))
        await play.complete(job_id, "1", then_none=True)
    await play.workers_are_idle("q")
    await play.compare(but=with_our_words, why=why, both=play.with_one_timestamp)


def _due_times(play: Player, schedule: str) -> list[str]:
    """When the schedule's jobs in the recording were due, the first one first."""
    kept = (key for step in play.steps for key in step.keys)
    return sorted({key.rpartition(":")[2] for key in kept if f":repeat:{schedule}:" in f":{key}"})


def _without_check(keys: KeySpace) -> None:
    for key in ("q:stalled-check", "parents:stalled-check"):
        keys.pop(key, None)


@plays("v5_legacy_repeatable.v5")
async def legacy_repeatable(play: Player) -> None:
    play.step("legacy repeatable jobs (v5 only)")
    stored = play.recorded.keys
    await play.as_recorded(*(key for key in stored if key != "q:events"))
    for event in stored["q:events"]["value"]:
        await play.emit(**event["fields"])
    await play.compare()

    schedule = "2de99c4afb4e0b2f2c7e33f49c3bc5ee"
    due_ms, next_ms = 1_795_451_640_000, 1_795_451_700_000
    for at_ms in (due_ms, next_ms):  # its data is kept from one run to the next
        job_id = f"repeat:{schedule}:{at_ms}"
        play.at(at_ms)
        await play.take_at(job_id, at_ms)
        await play.iterate(job_id, at_ms=at_ms + 5)
        assert play.taken(job_id).data == b'{"a":1}'
    record = await play.redis.hgetall(play.key(f"q:repeat:{schedule}"))
    assert record == {"name": "rep", "every": "60000", "ic": "2", "data": '{"a":1}'}
    assert await play.redis.zscore(play.key("q:repeat"), schedule) == next_ms + 60_000


# --- registration ---------------------------------------------------------------


@plays("registration.v5", "registration.v6")
async def registration(play: Player) -> None:
    keys = QueueKeys(QueueRef("my queue é"))
    unnamed, listener, named = play.facts["clientNames"]

    assert keys.client_name() == unnamed
    assert keys.client_name("alpha") == named
    assert queue_of_client(unnamed) == queue_of_client(named) == keys.queue
    assert queue_of_client(listener) is None
