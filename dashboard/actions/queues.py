"""Actions on queues and their jobs: pause, resume, replay."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dashboard.actions.journal import Actor, Done, Journal
from dashboard.filters import plural
from dashboard.problems import BadInput
from tickbird.job import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from tickbird.job import QueueRef

MAX_REPLAYS = 50
"""Jobs one request may replay: a page of them."""


class QueueWrites(Protocol):
    """What is done to a queue: tickbird's Queue."""

    async def pause(self) -> None:
        """Stop starting jobs."""

    async def resume(self) -> None:
        """Start jobs again."""

    async def replay(self, job_ids: Sequence[str], *, state: JobState) -> list[bool]:
        """Put finished jobs back."""

    async def aclose(self) -> None:
        """Close its connection."""


@dataclass(slots=True)
class QueueActions:
    """The actions; `open_queue` gives a Queue for a reference."""

    journal: Journal
    open_queue: Callable[[QueueRef], QueueWrites]

    async def pause(self, queue: QueueRef, actor: Actor) -> Done:
        """Stop starting jobs of a queue; running ones go on."""

        async def do() -> Done:
            async with self._opened(queue) as opened:
                await opened.pause()
            return Done(sentence=f"{queue.label} is paused: running jobs end, no new one starts.")

        return await self.journal.carry_out("pause", actor, queue, do)

    async def resume(self, queue: QueueRef, actor: Actor) -> Done:
        """Start jobs of a queue again."""

        async def do() -> Done:
            async with self._opened(queue) as opened:
                await opened.resume()
            return Done(sentence=f"{queue.label} runs again.")

        return await self.journal.carry_out("resume", actor, queue, do)

    async def replay(
        self, queue: QueueRef, ids: Sequence[str], actor: Actor, *, state: JobState
    ) -> Done:
        """Put up to 50 failed (or completed) jobs of one queue back as new."""

        async def do() -> Done:
            async with self._opened(queue) as opened:
                back = sum(await opened.replay(ids, state=state))
            return Done(sentence=replayed(back, len(ids)), asked=len(ids), done=back)

        return await self.journal.carry_out("replay", actor, queue, do, ids=ids)

    async def replay_all(self, chosen: Mapping[QueueRef, Sequence[str]], actor: Actor) -> Done:
        """Put failed jobs of several queues back, 50 in all."""
        asked = sum(len(ids) for ids in chosen.values())
        if not 0 < asked <= MAX_REPLAYS:
            raise BadInput(f"Between 1 and {MAX_REPLAYS} jobs can be replayed at once.")
        back = 0
        for queue, ids in chosen.items():
            done = await self.replay(queue, ids, actor, state=JobState.FAILED)
            back += done.done
        return Done(sentence=replayed(back, asked), asked=asked, done=back)

    @asynccontextmanager
    async def _opened(self, queue: QueueRef) -> AsyncIterator[QueueWrites]:
        opened = self.open_queue(queue)
        try:
            yield opened
        finally:
            await opened.aclose()


def replayed(back: int, asked: int) -> str:
    """The sentence about a replay: how many, and what of the rest."""
    if back == asked:
        return f"Replayed {plural(back, 'job')}: back in the queue, with all attempts."
    rest = asked - back
    if back == 0:
        return "Nothing to replay: already replayed or removed, by you or by somebody else."
    were = "was" if rest == 1 else "were"
    return (
        f"Replayed {back:,} of {plural(asked, 'job')}; {rest:,} {were} already replayed or removed."
    )
