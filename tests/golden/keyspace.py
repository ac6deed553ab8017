"""A queue's whole key space as plain values, and how two of them differ.

Recordings and live dumps come through `as_stored`, so that both lose what may differ between
clients: ids of events, order of JSON keys, lock tokens, `meta.version`, and whatever is ours alone
(fields and options called `tb...`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TTL_SLACK_MS = 5_000
"""A dump is taken some time after the step; times to live are compared up to this."""

_JSON_FIELDS = frozenset({"data", "opts", "parent", "progress", "returnvalue", "stacktrace"})


@dataclass(slots=True)
class Stored:
    """One key. The value is text, a list, or a dict (hash, zset: member -> score)."""

    type: str
    value: Any
    ttl_ms: int | None = None


KeySpace = dict[str, Stored]
"""By key without the prefix: `<queue>:<suffix>`."""


def as_stored(key: str, kind: str, value: Any, pttl: int) -> Stored:
    """What a key holds, without what no two clients have in common.

    Values as the recordings have them: a zset as [{member, score}], a stream as [{id, fields}].
    """
    if kind == "hash":
        value = {name: _field(name, text) for name, text in value.items() if _is_shared(name)}
        if key.endswith(":meta"):
            value.pop("version", None)
    elif kind == "zset":
        value = {entry["member"]: float(entry["score"]) for entry in value}
    elif kind == "set":
        value = sorted(value)
    elif kind == "stream":
        value = [
            {name: _field(name, text) for name, text in entry["fields"].items() if _is_shared(name)}
            for entry in value
        ]
    elif kind == "list":
        value = list(value)
    elif key.endswith(":lock"):
        value = "(token)"
    return Stored(kind, value, None if pttl < 0 else pttl)


def _is_shared(name: str) -> bool:
    return not name.startswith("tb")


def _field(name: str, text: str) -> Any:
    if name not in _JSON_FIELDS:
        return text
    value = json.loads(text)
    if name == "opts":
        value.pop("tb", None)
    return value


def differences(expected: KeySpace, actual: KeySpace) -> list[str]:
    """Every way in which they differ, a line each; empty when they are equal."""
    found: list[str] = []
    for key in sorted({*expected, *actual}):
        if key not in actual:
            found.append(f"{key}: missing")
        elif key not in expected:
            found.append(f"{key}: should not exist, holds {actual[key].value!r}")
        else:
            found += [f"{key}{line}" for line in _value_differences(expected[key], actual[key])]
    return found


def _value_differences(expected: Stored, actual: Stored) -> list[str]:
    if expected.type != actual.type:
        return [f": is a {actual.type}, not a {expected.type}"]
    found: list[str] = []
    if expected.type in ("hash", "zset"):
        for name in sorted({*expected.value, *actual.value}):
            found += _difference(f"[{name}]", expected.value.get(name), actual.value.get(name))
    elif expected.type == "stream":  # the order of an event's fields counts, too
        found += _difference("", _in_order(expected.value), _in_order(actual.value))
    else:
        found += _difference("", expected.value, actual.value)
    if not _is_about(expected.ttl_ms, actual.ttl_ms):
        found.append(f" (time to live): expected about {expected.ttl_ms}, found {actual.ttl_ms}")
    return found


def _difference(where: str, expected: Any, actual: Any) -> list[str]:
    if type(expected) is type(actual) and expected == actual:
        return []
    return [f"{where}: expected {expected!r}, found {actual!r}"]


def _in_order(events: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, Any]]]:
    return [list(event.items()) for event in events]


def _is_about(expected: int | None, actual: int | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return abs(expected - actual) <= TTL_SLACK_MS


# --- recordings ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """What the keys were after a step, and when (epoch milliseconds) that was."""

    label: str
    now_ms: int
    keys: Mapping[str, Mapping[str, Any]]
    """As recorded: type, pttl and value by key without the prefix."""

    def key_space(self) -> KeySpace:
        """What ours should look like: a lock's key lives twice as long as its deadline here."""
        keys = {
            key: as_stored(key, k["type"], k["value"], k["pttl"]) for key, k in self.keys.items()
        }
        for key, stored in keys.items():
            if key.endswith(":lock") and stored.ttl_ms is not None:
                stored.ttl_ms *= 2
        return keys


def read_recording(path: Path) -> tuple[dict[str, Any], list[RecordedStep]]:
    """A recording's own facts (scenario, client, ...) and its steps in order."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    steps = [
        RecordedStep(
            step["label"],
            step["now"],
            {key.partition(":")[2]: value for key, value in step["keys"].items()},
        )
        for step in facts.pop("steps")
    ]
    return facts, steps


# --- the live server ----------------------------------------------------------


async def dump(client: Any, prefix: str) -> KeySpace:
    """All keys under a prefix, our own `tickbird:*` not among them."""
    keys: KeySpace = {}
    async for name in client.scan_iter(match=f"{prefix}:*", count=1_000):
        kind = await client.type(name)
        if kind == "none":  # popped by a worker in between
            continue
        value = await _READERS[kind](client, name)
        key = name.removeprefix(f"{prefix}:")
        keys[key] = as_stored(key, kind, value, await client.pttl(name))
    return keys


async def _zset(client: Any, key: str) -> list[dict[str, Any]]:
    pairs = await client.zrange(key, 0, -1, withscores=True)
    return [{"member": member, "score": score} for member, score in pairs]


async def _stream(client: Any, key: str) -> list[dict[str, Any]]:
    return [{"id": at, "fields": fields} for at, fields in await client.xrange(key)]


_READERS: dict[str, Any] = {
    "string": lambda client, key: client.get(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "hash": lambda client, key: client.hgetall(key),
    "zset": _zset,
    "stream": _stream,
}
