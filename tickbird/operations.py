"""What operators and dashboards do to a queue: pause, resume, replay. The base of Queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tickbird.errors import InvalidOption
from tickbird.inspector import Inspector
from tickbird.job import JobState, QueueRef
from tickbird.storage import scripts
from tickbird.storage.connection import Connection, NotNow, NotSent, ReplyLost, unavailable
from tickbird.storage.keys import QueueKeys
from tickbird.storage.lanes import Lanes
from tickbird.storage.wire import packed, raw_bytes, state_suffix

_REPLAYS_PER_CALL = 500
_RESUME_PER_CALL = 10_000


class Operations:
    """The operator's side of one queue."""

    def __init__(self, ref: QueueRef, connection: Connection, deadline_s: float) -> None:
        self.ref = ref
        self._keys = QueueKeys(ref)
        self._connection = connection
        self._inspector = Inspector(connection)
        self._lanes = Lanes(connection, ref)
        self._deadline_s = deadline_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ref.label!r}, redis={self._connection!r})"

    @property
    def name(self) -> str:
        """The queue's name, without its prefix."""
        return self.ref.name

    async def pause(self) -> None:
        """Stop starting jobs, for all workers of all clients; running ones go on, adds too."""
        await self._run("pause_queue")

    async def resume(self) -> None:
        """Start jobs again."""
        more = True
        while more:
            _, more = await self._run("resume_queue", _RESUME_PER_CALL)

    async def replay(
        self, job_ids: Sequence[str], *, state: JobState = JobState.FAILED
    ) -> list[bool]:
        """Put finished jobs back into the queue as new; at most 500 a call.

        Attempts and stalls start again from nothing, stack traces stay as history. Per id:
        True when it is back in the queue, False when it was not in `state` (replayed before,
        removed): replaying twice makes one replay.
        """
        if state not in (JobState.FAILED, JobState.COMPLETED):
            raise InvalidOption(f"only failed or completed jobs can be replayed, not {state}")
        if len(job_ids) > _REPLAYS_PER_CALL:
            raise InvalidOption(f"at most {_REPLAYS_PER_CALL} jobs a call, not {len(job_ids)}")
        if not job_ids:
            return []
        reply = await self._lanes.call(
            "replay_jobs",
            state_suffix(state),
            msgspec.msgpack.encode([packed(raw_bytes(job_id)) for job_id in job_ids]),
            deadline_s=self._deadline_s,
        )
        return [was_replayed == 1 for was_replayed in reply]

    async def _run(self, script: str, *args: Any) -> Any:
        """Run a script that is the same when run twice."""
        try:
            return await scripts.run(
                self._connection.call, script, self._keys.of("meta"), self._keys.prefix, *args
            )
        except (NotSent, ReplyLost, NotNow) as error:
            raise unavailable(self._connection.url, error) from error
