"""Reads every key of a database at once, in a form that compares with the model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

# The streams are emptied with the reading, so that each reading has the events since the last.
_READ = """
local found = {}
for _, key in ipairs(redis.call("KEYS", "*")) do
  local kind, value = redis.call("TYPE", key).ok, ""
  if string.match(key, "^tickbird:.*:op:") then kind = "memo"
  elseif kind == "hash" then value = redis.call("HGETALL", key)
  elseif kind == "list" then value = redis.call("LRANGE", key, 0, -1)
  elseif kind == "zset" then value = redis.call("ZRANGE", key, 0, -1, "WITHSCORES")
  elseif kind == "set" then value = redis.call("SMEMBERS", key)
  elseif kind == "string" then value = { redis.call("GET", key), redis.call("PTTL", key) }
  elseif kind == "stream" then
    value = redis.call("XRANGE", key, "-", "+")
    redis.call("XTRIM", key, "MAXLEN", 0)
  end
  found[#found + 1] = { key, kind, value }
end
return found
"""
_JSON_FIELDS = ("opts", "parent")
_DRIFT_MS = 60_000

Event = tuple[str, ...]
"""What an event says: its kind, then `field=value` in the fields' order."""


class Until:
    """A text with the milliseconds until it ends; equal when they are nearly the same."""

    def __init__(self, text: str, ends_in_ms: int | None) -> None:
        self.text = text
        self.ends_in_ms = ends_in_ms

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Until) or self.text != other.text:
            return False
        if self.ends_in_ms is None or other.ends_in_ms is None:
            return self.ends_in_ms is other.ends_in_ms
        return abs(self.ends_in_ms - other.ends_in_ms) < _DRIFT_MS

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.text!r} for {self.ends_in_ms} ms"


@dataclass(slots=True)
class KeySpace:
    """Every key by its whole name, the streams' events apart."""

    keys: dict[str, Any] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)


async def read_keyspace(client: Any) -> KeySpace:
    """All keys of the client's database but the lanes' memos. Events are read once."""
    space = KeySpace()
    for raw_key, kind, value in await client.eval(_READ, 0):
        key = raw_key.decode()
        if kind == b"stream":
            space.events[key] = [_event(fields) for _, fields in value]
        elif kind != b"memo":
            space.keys[key] = _lock(value) if key.endswith(":lock") else _READERS[kind](value)
    return space


def _hash(value: list[bytes]) -> dict[str, Any]:
    fields = {}
    for name, raw in zip(value[::2], value[1::2], strict=True):
        text = name.decode()
        fields[text] = _json(raw) if text in _JSON_FIELDS else raw.decode()
    return fields


def _zset(value: list[bytes]) -> list[tuple[str, float]]:
    return [(m.decode(), float(score)) for m, score in zip(value[::2], value[1::2], strict=True)]


def _string(value: tuple[bytes, int]) -> Until:
    text, ttl_ms = value
    return Until(text.decode(), None if ttl_ms < 0 else ttl_ms)


def _lock(value: tuple[bytes, int]) -> Until:
    """A lock must end by itself; when is for the index of deadlines to say."""
    token, ttl_ms = value
    return Until(token.decode(), 0 if ttl_ms > 0 else None)


_READERS: Mapping[bytes, Any] = {
    b"hash": _hash,
    b"zset": _zset,
    b"string": _string,
    b"list": lambda value: [item.decode() for item in value],
    b"set": lambda value: {item.decode() for item in value},
}


@lru_cache(maxsize=4_096)
def _json(raw: bytes) -> Any:
    return msgspec.json.decode(raw)


def _event(fields: list[bytes]) -> Event:
    texts = [text.decode() for text in fields]
    names, values = texts[::2], texts[1::2]
    assert (names[0], names[-1], values[-1]) == ("event", "tb", "1"), texts
    return (values[0], *map("=".join, zip(names[1:-1], values[1:-1], strict=True)))


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Each key that is not as expected, with both values; empty when all are."""
    lines = []
    for key in sorted({*expected, *found}):
        wanted, there = expected.get(key, "(no key)"), found.get(key, "(no key)")
        if wanted == there:
            continue
        if isinstance(wanted, dict) and isinstance(there, dict):
            names = [n for n in sorted({*wanted, *there}) if wanted.get(n) != there.get(n)]
            wanted = {name: wanted.get(name) for name in names}
            there = {name: there.get(name) for name in names}
        lines.append(f"{key}\n  model: {wanted}\n  Redis: {there}")
    return "\n".join(lines)
