"""Every row of the table of error replies, given to a producer and to a worker at work."""

from __future__ import annotations

import pytest

from tests.conftest import eventually, running
from tests.faults.proxy import lossy_proxy
from tickbird import App, JobState, Queue, QueueFull, RedisUnavailable, Worker
from tickbird.storage.replies import TABLE, Meaning

pytestmark = pytest.mark.faults

TEXTS = {
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "BUSY": "BUSY Redis is busy running a script. You can only call SCRIPT KILL",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but is unable to persist",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN": "CLUSTERDOWN Hash slot not served",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation, instance state changed",
    "READONLY": "READONLY You can't write against a read only replica.",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "NOAUTH": "NOAUTH Authentication required.",
    "WRONGPASS": "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM": "NOPERM this user has no permissions to run the 'evalsha' command",
    "MOVED": "MOVED 3999 127.0.0.1:6381",
    "ASK": "ASK 3999 127.0.0.1:6381",
    "CROSSSLOT": "CROSSSLOT Keys in request don't hash to the same slot",
    "NOSCRIPT": "NOSCRIPT No matching script. Please use EVAL.",
}
HEALING = (Meaning.NOT_NOW, Meaning.NOT_HERE, Meaning.UNKNOWN_SCRIPT)


def test_the_table_and_this_test_name_the_same_replies() -> None:
    assert set(TEXTS) == set(TABLE)


@pytest.mark.parametrize("code", TEXTS)
async def test_an_add_is_sent_again_or_told_the_meaning(
    redis_url: str, prefix: str, code: str
) -> None:
    async with lossy_proxy(redis_url, seed=1) as proxy:
        queue = Queue("mail", redis=proxy.url, prefix=prefix, deadline_s=5)
        await queue.add("x")
        proxy.answer_instead(*[TEXTS[code]] * (1 if code == "NOSCRIPT" else 3))

        if TABLE[code] in HEALING:
            handle = await queue.add("x")
            assert handle.id == "2"
        else:
            expected = QueueFull if TABLE[code] is Meaning.FULL else RedisUnavailable
            with pytest.raises(expected):
                await queue.add("x")
        await queue.aclose()


@pytest.mark.parametrize("code", TEXTS)
async def test_a_worker_outlives_every_reply(redis_url: str, prefix: str, code: str) -> None:
    async with lossy_proxy(redis_url, seed=1) as proxy:
        app = App("replies", redis=proxy.url, prefix=prefix)
        runs: list[int] = []

        @app.task(queue="mail", retry=1)
        async def work(n: int) -> None:
            runs.append(n)

        direct = Queue("mail", redis=redis_url, prefix=prefix)
        async with running(Worker(app, queues=["mail"], concurrency=4)):
            await direct.add_many([("work", {"n": n}) for n in range(20)])
            await eventually(lambda: _has(runs, 20))
            proxy.answer_instead(*[TEXTS[code]] * 4)
            await direct.add_many([("work", {"n": n}) for n in range(20, 40)])
            await eventually(lambda: _has(runs, 40))

            async def settled() -> bool:
                (sample,) = await direct._inspector.sample([direct.ref])
                return sample.counts[JobState.COMPLETED] == 40

            await eventually(settled)
        assert sorted(runs) == list(range(40))
        await direct.aclose()
        await app.aclose()


async def _has(runs: list[int], count: int) -> bool:
    return len(runs) >= count
