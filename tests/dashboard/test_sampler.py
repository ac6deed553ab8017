"""The sampler: figures from differences, and what it keeps when something fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dashboard.observer.sampler import SECONDS_KEPT, Sampler, changed
from dashboard.observer.snapshot import QueueFigures, event_name
from tests.dashboard.factories import FakeSource, MovedClock, sample, stats
from tickbird import JobState, QueueRef, QueueSample


class NoJudge:
    def evaluate(self, _figures: Sequence[QueueFigures], _now_ms: int) -> tuple[()]:
        return ()


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def told() -> list[frozenset[str]]:
    return []


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def sampler(source: FakeSource, told: list[frozenset[str]], clock: MovedClock) -> Sampler:
    return Sampler(
        source=source,
        judge=NoJudge(),
        clock=clock,
        publish=lambda names, _version: told.append(names),
        actions=dict,
    )


async def take(sampler: Sampler, *samples: QueueSample) -> QueueFigures:
    assert isinstance(sampler.source, FakeSource)
    sampler.source.samples = list(samples)
    snapshot = await sampler.run_once()
    return snapshot.queues[0]


async def test_rates_are_differences_of_the_counters(sampler: Sampler) -> None:
    await take(sampler, sample(at_s=0, stats=stats(added=1_000, completed=900, failed=50)))

    figures = await take(
        sampler,
        sample(at_s=30, stats=stats(added=1_060, completed=920, retried=5, failed=55)),
    )

    rates = figures.rates
    assert rates.window_s == 30
    assert rates.added_per_min == 120
    assert rates.finished_per_min == 50
    assert rates.failed_per_min == 10
    assert rates.retried_per_min == 10
    assert (rates.attempts, rates.failed_attempts) == (30, 10)
    assert rates.failure_rate == pytest.approx(1 / 3)
    assert rates.run_p50_ms == pytest.approx(85)


async def test_the_window_is_the_last_minute(sampler: Sampler) -> None:
    for second in range(0, 200, 5):
        figures = await take(sampler, sample(at_s=second, stats=stats(completed=second)))

    assert 60 <= figures.rates.window_s <= 65
    assert figures.rates.finished_per_min == pytest.approx(60)


async def test_counters_that_were_reset_give_zero_not_less(sampler: Sampler) -> None:
    await take(sampler, sample(at_s=0, stats=stats(completed=500)))

    figures = await take(sampler, sample(at_s=10, stats=stats(completed=3)))

    assert figures.rates.finished_per_min == 0
    assert figures.rates.run_p95_ms is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(100, 50, 10.0), (50, 100, None), (50, 50, None), (10, 0, 0.0)],
)
async def test_the_time_to_empty_comes_from_the_net_rate(
    sampler: Sampler, before: int, after: int, expected: float | None
) -> None:
    await take(sampler, sample(at_s=0, counts={JobState.WAITING: before}))

    figures = await take(sampler, sample(at_s=10, counts={JobState.WAITING: after}))

    assert figures.rates.drain_s == expected


async def test_series_are_bounded_and_minutes_are_added_once(sampler: Sampler) -> None:
    for second in range(SECONDS_KEPT + 50):
        figures = await take(sampler, sample(at_s=second, stats=stats(completed=second * 2)))

    assert len(figures.series.depth) == SECONDS_KEPT
    assert figures.series.finished[-1] == 2
    assert len(figures.minutes.at_ms) == len(set(figures.minutes.at_ms)) == 11
    assert figures.minutes.finished[-1] == pytest.approx(2)


async def test_a_failed_sample_keeps_the_last_good_figures(
    sampler: Sampler, source: FakeSource, clock: MovedClock
) -> None:
    await take(sampler, sample(counts={JobState.WAITING: 7}))
    source.down = "no Redis answers"
    clock.at_s += 30

    snapshot = await sampler.run_once()

    assert not snapshot.up
    assert snapshot.error == "no Redis answers"
    assert snapshot.queues[0].sample.depth == 7
    assert sampler.age_s() == 30


async def test_without_any_good_sample_the_snapshot_is_blank(
    sampler: Sampler, source: FakeSource
) -> None:
    source.down = "no Redis answers"

    snapshot = await sampler.run_once()

    assert snapshot.is_blank


async def test_a_queue_that_cannot_be_read_keeps_its_history_and_spoils_no_other(
    sampler: Sampler,
) -> None:
    good, bad = sample("good", counts={JobState.WAITING: 5}), sample("bad")
    await take(sampler, replace(bad, depth=9), good)

    broken = replace(sample("bad", at_s=1), error="key bad:wait is no list")
    figures = await take(sampler, broken, sample("good", at_s=1, counts={JobState.WAITING: 6}))

    assert figures.sample.error == "key bad:wait is no list"
    assert figures.series.depth == (9,)
    assert sampler.snapshot.queues[1].series.depth == (5, 6)


async def test_browsers_hear_only_of_what_moved(
    sampler: Sampler, told: list[frozenset[str]]
) -> None:
    await take(sampler, sample("a"), sample("b"))
    told.clear()

    await take(sampler, sample("a", at_s=1), sample("b", at_s=1, counts={JobState.WAITING: 1}))

    assert told == [frozenset({"queues", event_name(QueueRef("b"))})]


async def test_nothing_moved_means_nothing_is_told(
    sampler: Sampler, told: list[frozenset[str]]
) -> None:
    await take(sampler, sample("a"))
    told.clear()

    await take(sampler, sample("a", at_s=1))

    assert told == []


async def test_losing_redis_is_told_once(
    sampler: Sampler, source: FakeSource, told: list[frozenset[str]]
) -> None:
    await take(sampler, sample("a"))
    told.clear()
    source.down = "no Redis answers"

    await sampler.run_once()
    await sampler.run_once()

    assert told == [frozenset({"health", "queues", "workers"})]
    assert changed(sampler.snapshot, sampler.snapshot) == frozenset()


def test_event_names_are_safe_whatever_a_queue_is_called() -> None:
    name = event_name(QueueRef("a b\n<x>,\udcff"))

    assert name.replace("-", "").isalnum()
