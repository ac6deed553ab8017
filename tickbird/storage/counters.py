"""A queue's counters as lib/stats.lua keeps them: one hash of sums, read into QueueStats.

Fields are `<what>:<more>:<job name>`; the name comes last because it may hold anything:

    added:<name>                      jobs added
    run:<outcome>:<bucket>:<name>     attempts by outcome and processing time (stats.BOUNDS_MS)
    run_ms:<outcome>:<name>           their processing times, summed
    wait:<bucket>:<name>              takes by waiting time, where it is known
    wait_ms:<name>                    their waiting times, summed
    dead:<reason>:<name>              final failures
    replayed:<state>                  jobs put back by hand
    removed:<state>                   jobs removed, cleaned or drained, by the state they were in
    stalled, vanished                 jobs recovered; ids met without a job
    task:<name>, tasks                which names are counted, and how many
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tickbird.job import Outcome
from tickbird.stats import BOUNDS_MS, Histogram, QueueStats, TaskStats
from tickbird.storage.wire import number, text

_Row = tuple[tuple[str, ...], int]
# What stands between the kind and the job name, by kind.
_PARTS = {
    "added": 1,
    "run": 3,
    "run_ms": 2,
    "wait": 2,
    "wait_ms": 1,
    "dead": 2,
    "replayed": 1,
    "removed": 1,
}


def stats_from_hash(fields: Mapping[bytes, bytes]) -> QueueStats:
    """The counters of one queue; fields of a kind not known here are passed over."""
    rows: dict[str, list[_Row]] = {}
    for raw_field, raw_value in fields.items():
        kind, _, rest = text(raw_field).partition(":")
        parts = tuple(rest.split(":", _PARTS.get(kind, 1) - 1))
        if len(parts) == _PARTS.get(kind, 1):
            rows.setdefault(kind, []).append((parts, number(raw_value)))
    names = {
        parts[-1] for kind in ("added", "run", "wait", "dead") for parts, _ in rows.get(kind, [])
    }
    by_name = _by_name(rows)
    return QueueStats(
        tasks={name: _task_stats(by_name(name)) for name in sorted(names)},
        stalled=_total(rows, "stalled"),
        replayed={parts[0]: value for parts, value in rows.get("replayed", [])},
        removed={parts[0]: value for parts, value in rows.get("removed", [])},
        vanished=_total(rows, "vanished"),
    )


def _by_name(rows: Mapping[str, list[_Row]]) -> Callable[[str], dict[str, list[_Row]]]:
    """The rows of one job name by kind, without the name."""
    index: dict[str, dict[str, list[_Row]]] = {}
    for kind, kind_rows in rows.items():
        for parts, value in kind_rows:
            index.setdefault(parts[-1], {}).setdefault(kind, []).append((parts[:-1], value))
    return lambda name: index.get(name, {})


def _task_stats(rows: Mapping[str, list[_Row]]) -> TaskStats:
    run = dict(_run_histograms(rows))
    return TaskStats(
        added=_total(rows, "added"),
        attempts={outcome: histogram.total for outcome, histogram in run.items()},
        run=run,
        wait=_histogram(rows.get("wait", []), _total(rows, "wait_ms")),
        dead_lettered={parts[0]: value for parts, value in rows.get("dead", [])},
    )


def _run_histograms(rows: Mapping[str, list[_Row]]) -> Iterator[tuple[Outcome, Histogram]]:
    sums = {parts[0]: value for parts, value in rows.get("run_ms", [])}
    for outcome in Outcome:
        counted = [(parts[1:], n) for parts, n in rows.get("run", []) if parts[0] == outcome]
        if counted:
            yield outcome, _histogram(counted, sums.get(outcome, 0))


def _histogram(counted: list[_Row], sum_ms: int) -> Histogram:
    buckets = [0] * (len(BOUNDS_MS) + 1)
    for (bucket,), value in counted:
        if bucket.isdecimal() and int(bucket) < len(buckets):
            buckets[int(bucket)] += value
    return Histogram(tuple(buckets), sum_ms)


def _total(rows: Mapping[str, list[_Row]], kind: str) -> int:
    return sum(value for _, value in rows.get(kind, []))
