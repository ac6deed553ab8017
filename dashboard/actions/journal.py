"""How every action is carried out: refused when read-only, counted, and written down."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dashboard.filters import printable
from dashboard.problems import Refused
from dashboard.store import AuditRecord, DashboardStore, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tickbird.clock import Clock
    from tickbird.job import QueueRef

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: the signed-in user ("anonymous" without sign-in) and the address."""

    who: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an action came to: how many of how many, and the sentence for the page."""

    sentence: str
    asked: int = 1
    done: int = 1


@dataclass(slots=True)
class Journal:
    """Carries actions out. `counts` says how often each ended how, since the start."""

    store: DashboardStore
    clock: Clock
    read_only: bool = False
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def carry_out(
        self,
        action: str,
        actor: Actor,
        queue: QueueRef,
        do: Callable[[], Awaitable[Done]],
        *,
        ids: Sequence[str] = (),
    ) -> Done:
        """Do it and write it down, whatever comes of it. What `do` raises goes on."""
        if self.read_only:
            await self._write(action, actor, queue, ids, "refused: read-only")
            self.counts[action, "refused"] += 1
            raise Refused("This dashboard is read-only (--read-only), so nothing was done.")
        try:
            done = await do()
        except Exception as error:
            self.counts[action, "failed"] += 1
            await self._write(action, actor, queue, ids, f"failed: {type(error).__name__}")
            raise
        self.counts[action, "done"] += 1
        outcome = "done" if done.done == done.asked else f"{done.done} of {done.asked} done"
        await self._write(action, actor, queue, ids, outcome)
        return done

    async def _write(
        self, action: str, actor: Actor, queue: QueueRef, ids: Sequence[str], outcome: str
    ) -> None:
        log.info(
            "action name=%s who=%s peer=%s queue=%s jobs=%d outcome=%s",
            action,
            printable(actor.who),
            actor.peer,
            printable(queue.label),
            len(ids),
            outcome,
        )
        record = AuditRecord(
            at_ms=self.clock.now_ms(),
            who=actor.who,
            peer=actor.peer,
            action=action,
            queue=queue.label,
            ids=tuple(ids),
            count=len(ids),
            outcome=outcome,
        )
        try:
            await self.store.record(record)
        except StoreUnavailable as error:
            log.warning("audit_not_stored action=%s error=%s", action, error)
