"""Server-sent events: names of what changed, from the one sampler to any number of browsers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.response import ServerSentEvent, ServerSentEventMessage

from dashboard.problems import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEARTBEAT_S = 15.0
MAX_LISTENERS = 500
REMEMBERED = 256
EVERYTHING = "health"
"""The name every live part of every page listens to."""


@dataclass(slots=True, eq=False)
class _Listener:
    """One browser: names it has not been told yet. A slow one gets each name once."""

    pending: set[str] = field(default_factory=set)
    bell: asyncio.Event = field(default_factory=asyncio.Event)


class LiveFull(Exception):
    """As many browsers listen as this process serves; they poll instead."""


class LiveFeed:
    """Fans names out. `close()` ends all streams; browsers come back by themselves.

    What was told is remembered for a while by its snapshot's version, so that nothing is
    missed between a page's rendering and its stream, or between two streams.
    """

    def __init__(self, began: int, heartbeat_s: float = HEARTBEAT_S) -> None:
        """`began`: the version of the first snapshot; older ones are of another process."""
        self.heartbeat_s = heartbeat_s
        self._began = began
        self._listeners: set[_Listener] = set()
        self._told: deque[tuple[int, frozenset[str]]] = deque(maxlen=REMEMBERED)
        self._closing = False

    @property
    def listeners(self) -> int:
        """How many browsers listen now."""
        return len(self._listeners)

    def publish(self, names: frozenset[str], version: int) -> None:
        """Tell every browser, without waiting for any."""
        self._told.append((version, names))
        for listener in self._listeners:
            listener.pending |= names
            listener.bell.set()

    def close(self) -> None:
        """End all streams, now and from now on. Safe to call from a signal handler."""
        self._closing = True
        for listener in self._listeners:
            listener.bell.set()

    def listen(self, since: int | None = None) -> AsyncIterator[ServerSentEventMessage]:
        """The events for one browser, until it goes or `close()`. Raises LiveFull.

        `since`: the version of the snapshot the browser knows; None: it knows nothing.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            raise LiveFull
        return self._events(self._missed(since))

    def _missed(self, since: int | None) -> set[str]:
        if since is None:
            return {EVERYTHING}
        if since < (self._told[0][0] if len(self._told) == REMEMBERED else self._began):
            return {EVERYTHING}
        return {name for version, names in self._told if version > since for name in names}

    async def _events(self, missed: set[str]) -> AsyncIterator[ServerSentEventMessage]:
        listener = _Listener(pending=missed)
        if missed:
            listener.bell.set()
        self._listeners.add(listener)
        try:
            yield ServerSentEventMessage(event="hello", data="1", retry=1_000)
            while not self._closing:
                try:
                    async with asyncio.timeout(self.heartbeat_s):
                        await listener.bell.wait()
                except TimeoutError:
                    yield ServerSentEventMessage(comment="still here", data=None)
                    continue
                listener.bell.clear()
                names, listener.pending = listener.pending, set()
                version = self._told[-1][0] if self._told else 0
                for name in sorted(names):
                    yield ServerSentEventMessage(event=name, data="1", id=str(version))
        finally:
            self._listeners.discard(listener)


@get("/events", name="events", sync_to_thread=False)
def events(request: Request[Any, Any, Any], feed: NamedDependency[LiveFeed]) -> ServerSentEvent:
    """Names of what changed, as it changes. `since` and Last-Event-ID are snapshot versions."""
    known = request.headers.get("last-event-id") or request.query_params.get("since") or ""
    try:
        return ServerSentEvent(feed.listen(_version(known)))
    except LiveFull:
        raise Refused("Too many browsers listen; this page polls instead.", status=503) from None


def _version(text: str) -> int | None:
    """A snapshot's version, or None for anything that is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 - no version has more digits
