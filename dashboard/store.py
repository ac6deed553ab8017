"""The only place that touches the dashboard's own keys: `tickbird:*`, never a queue's."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Sequence

AUDIT = "tickbird:audit"
AUDIT_LENGTH = 10_000
AUDIT_DAYS = 90
AUDIT_IDS = 100
_TIMEOUT_S = 5.0


class StoreUnavailable(Exception):
    """The dashboard's own records cannot be read or written now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who did what to which jobs, and how it ended. Only the first 100 ids are kept."""

    at_ms: int
    who: str
    peer: str
    action: str
    queue: str
    ids: tuple[str, ...] = ()
    count: int = 0
    outcome: str = "done"


@dataclass(slots=True)
class DashboardStore:
    """The dashboard's records on Redis. Connects at the first use."""

    url: str
    _client: aioredis.Redis | None = field(default=None, init=False)

    async def record(self, record: AuditRecord) -> None:
        """Append to the audit stream: about 10,000 records, none older than 90 days."""
        oldest_ms = record.at_ms - AUDIT_DAYS * 86_400_000
        fields = {
            "at_ms": str(record.at_ms),
            "who": _storable(record.who),
            "peer": record.peer,
            "action": record.action,
            "queue": _storable(record.queue),
            "ids": json.dumps(record.ids[:AUDIT_IDS]),
            "count": str(record.count),
            "outcome": record.outcome,
        }
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                pipe = self._connected().pipeline(transaction=False)
                pipe.xadd(AUDIT, fields, maxlen=AUDIT_LENGTH, approximate=True)  # type: ignore[arg-type]  # str is a FieldT
                pipe.xtrim(AUDIT, minid=str(oldest_ms), approximate=True)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(str(error)) from error

    async def recent(self, limit: int = 50) -> Sequence[AuditRecord]:
        """The newest audit records, newest first; at most 500."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                rows = await self._connected().xrevrange(AUDIT, count=min(limit, 500))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(str(error)) from error
        return [_record(fields) for _, fields in rows or []]

    async def aclose(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _connected(self) -> aioredis.Redis:
        if self._client is None:
            self._client = aioredis.Redis.from_url(
                self.url,
                max_connections=8,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3),
            )
        return self._client


def _storable(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", errors="surrogateescape")


def _record(raw: Any) -> AuditRecord:
    fields = {_text(key): _text(value) for key, value in raw.items()}
    return AuditRecord(
        at_ms=int(fields["at_ms"]),
        who=fields["who"],
        peer=fields["peer"],
        action=fields["action"],
        queue=fields["queue"],
        ids=tuple(json.loads(fields["ids"])),
        count=int(fields["count"]),
        outcome=fields["outcome"],
    )
