"""Builds what tests need: a worker driven by hand, step by step, on the real scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tickbird import Queue
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys
from tickbird.storage.lanes import Lane, Lanes
from tickbird.storage.wire import EndedAttempt, TakenJob, packed, raw_bytes, taken_job


@dataclass
class HandWorker:
    """Takes and ends jobs call by call; `lane` is open to tests that send calls again."""

    queue: Queue
    lock_ms: int = 30_000
    id: str = "hand"
    name: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    lane: Lane = field(init=False)
    token: bytes = b""
    reply: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lane = Lanes(self.connection, self.queue.ref).open()

    @property
    def connection(self) -> Connection:
        return self.queue._connection

    @property
    def keys(self) -> QueueKeys:
        return QueueKeys(self.queue.ref)

    async def exchange(
        self,
        ended: list[EndedAttempt],
        wanted: int,
        *,
        suspect: bool = True,
        now_ms: int | str = "",
    ) -> tuple[list[Any], list[TakenJob]]:
        self.lane.begin()
        self.token = f"tb:{self.id}:{self.lane.number}:{self.lane.seq}".encode()
        return await self.send_again(ended, wanted, suspect=suspect, now_ms=now_ms)

    async def send_again(
        self,
        ended: list[EndedAttempt],
        wanted: int,
        *,
        suspect: bool = True,
        now_ms: int | str = "",
    ) -> tuple[list[Any], list[TakenJob]]:
        self.reply = await self.lane.send(
            "finish_and_take", msgspec.msgpack.encode(ended), wanted, self.token,
            msgspec.msgpack.encode({"lock_ms": self.lock_ms, "name": self.name, **self.limits}),
            int(suspect), now_ms, deadline_s=5,
        )  # fmt: skip
        codes, taken, at_ms, *_ = self.reply
        return codes, [taken_job(i, fields, self.token, at_ms) for i, fields in taken]

    async def take(self, wanted: int = 1, **how: Any) -> list[TakenJob]:
        _, jobs = await self.exchange([], wanted, **how)
        return jobs

    async def take_one(self) -> TakenJob:
        (job,) = await self.take(1)
        return job

    async def end(self, job: TakenJob, outcome: str = "completed", **more: Any) -> Any:
        (code,), _ = await self.exchange([ended(job, outcome, **more)], 0)
        return code


def ended(job: TakenJob, outcome: str = "completed", **more: Any) -> EndedAttempt:
    """An ended attempt of a taken job; texts are given as str."""
    text = packed(more.pop("text", "null" if outcome == "completed" else "failed").encode())
    stacktrace = packed(more.pop("stacktrace", "").encode())
    return EndedAttempt(
        id=packed(job.id), token=packed(job.token), outcome=outcome, text=text,
        stacktrace=stacktrace, name=packed(raw_bytes(job.name)),
        **{"reason": "attempts" if outcome == "failed" else "", **more},
    )  # fmt: skip


async def expire_lock(queue: Queue, job_id: str) -> None:
    """What a lock's end does: its deadline is past, its key gone."""
    keys = QueueKeys(queue.ref)
    client = queue._connection.reader
    await client.zadd(keys.own("locks"), {job_id: 1})
    await client.delete(f"{keys.job(job_id)}:lock")
