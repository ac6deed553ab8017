from __future__ import annotations

import math
import random
from itertools import permutations

import pytest

from dashboard.alerts.trend import Trend, mann_kendall, rising, theil_sen, time_to_drain_s

START_MS = 1_700_000_000_000
WINDOW_S = 600.0


def series(values: list[float], *, step_s: float = 1.0) -> list[tuple[int, float]]:
    return [(START_MS + round(i * step_s * 1_000), value) for i, value in enumerate(values)]


def trend_of(values: list[float], *, day_before: float | None = None) -> Trend:
    return rising(series(values), window_s=WINDOW_S, day_before=day_before)


def is_alarm(points: list[tuple[int, float]]) -> bool:
    trend = rising(points, window_s=WINDOW_S)
    return trend.is_rising and trend.is_sustained


def first_alarm_s(values: list[float]) -> int | None:
    """After how many seconds of a series, fed second by second, it first rises for good."""
    points = series(values)
    for end in range(1, len(points) + 1):
        if is_alarm(points[max(0, end - 600) : end]):
            return end
    return None


def exact_p_values(n: int) -> dict[int, float]:
    """The two-sided p-value of each |S|, from all orders of n values (Mahonian numbers)."""
    orders = [1]
    for size in range(2, n + 1):
        longer = [0] * (len(orders) + size - 1)
        for inversions, count in enumerate(orders):
            for more in range(size):
                longer[inversions + more] += count
        orders = longer
    pairs, total = n * (n - 1) // 2, sum(orders)
    by_s = {pairs - 2 * inversions: count for inversions, count in enumerate(orders)}
    return {
        s: min(1.0, sum(c for other, c in by_s.items() if abs(other) >= s) / total)
        for s in by_s
        if s >= 0
    }


def order_with(n: int, inversions: int) -> list[float]:
    """The numbers 0 to n-1 in an order that has so many falling pairs."""
    left, result = [float(i) for i in range(n)], []
    for remaining in range(n - 1, -1, -1):
        skip = min(inversions, remaining)
        result.append(left.pop(skip))
        inversions -= skip
    return result


def test_the_helper_for_exact_p_values_agrees_with_counting_all_orders() -> None:
    seen = [
        sum((b > a) - (b < a) for i, a in enumerate(order) for b in order[i + 1 :])
        for order in permutations(range(6))
    ]

    for s, p in exact_p_values(6).items():
        assert p == pytest.approx(sum(abs(other) >= s for other in seen) / len(seen))


@pytest.mark.parametrize("n", [8, 9, 10])
def test_mann_kendall_decides_as_the_exact_test_does(n: int) -> None:
    exact = exact_p_values(n)

    for inversions in range(n * (n - 1) // 2 + 1):
        s = abs(n * (n - 1) // 2 - 2 * inversions)
        p = mann_kendall(order_with(n, inversions))

        assert (p < 0.05) == (exact[s] < 0.05), s
        assert p == pytest.approx(exact[s], abs=0.03)


def test_mann_kendall_corrects_for_ties() -> None:
    # S = 25, variance (10 * 9 * 25 - 2 * 5 * 4 * 15) / 18 = 91.67, z = 24 / 9.574 = 2.507
    assert mann_kendall([0.0] * 5 + [7.0] * 5) == pytest.approx(0.0122, abs=0.0001)
    assert mann_kendall([3.0] * 10) == 1.0
    assert mann_kendall([1.0]) == 1.0


def test_theil_sen_ignores_one_wild_value() -> None:
    points = [(float(t), 2.0 * t) for t in range(10)]
    points[4] = (4.0, 1_000.0)

    slope, (low, high) = theil_sen(points)

    assert slope == 2.0
    assert low <= 2.0 <= high


def test_theil_sen_bounds_hold_the_true_slope_in_about_95_of_100_series() -> None:
    rng = random.Random(1)

    held = 0
    for _ in range(400):
        points = [(float(t), 3.0 * t + rng.gauss(0, 4)) for t in range(10)]
        _, (low, high) = theil_sen(points)
        held += low <= 3.0 <= high

    assert 370 <= held <= 395


def test_a_steady_queue_does_not_rise() -> None:
    rng = random.Random(2)

    assert first_alarm_s([50.0 + rng.randrange(-8, 9) for _ in range(1_500)]) is None


def test_a_constant_series_has_no_trend() -> None:
    trend = trend_of([40.0] * 600)

    assert (trend.slope_per_s, trend.p_value, trend.is_rising) == (0.0, 1.0, False)


def test_a_dead_consumer_is_seen_within_the_window_and_one_sample() -> None:
    healthy = [5.0] * 600
    growing = [5.0 + second for second in range(700)]

    alarm_s = first_alarm_s(healthy + growing)

    assert alarm_s is not None
    assert alarm_s - 600 <= 601


def test_a_slow_leak_is_seen() -> None:
    rng = random.Random(3)
    leak = [100.0 + second / 12 + rng.randrange(-4, 5) for second in range(700)]

    trend = trend_of(leak[:600])

    assert trend.is_rising
    assert trend.slope_per_s * 60 == pytest.approx(5.0, abs=0.5)
    assert trend.rise == pytest.approx(50.0, abs=5)


def test_a_rise_below_a_tenth_of_the_depth_is_noise() -> None:
    trend = trend_of([5_000.0 + second / 2 for second in range(600)])

    assert trend.noise_floor == pytest.approx(515, abs=1)
    assert trend.p_value < 0.05
    assert not trend.is_rising


def test_a_rise_of_less_than_ten_jobs_is_noise() -> None:
    assert not trend_of([second / 75 for second in range(600)]).is_rising
    assert trend_of([second / 45 for second in range(600)]).is_rising


@pytest.mark.parametrize("height", [200, 20_000])
@pytest.mark.parametrize("grows_s", [1, 10, 60, 120, 180])
def test_a_spike_that_drains_does_not_rise(height: int, grows_s: int) -> None:
    drains_s = 400
    spike = [height * second / grows_s for second in range(grows_s)]
    spike += [height * (1 - second / drains_s) for second in range(drains_s)]

    assert first_alarm_s([3.0] * 650 + spike + [3.0] * 650) is None


@pytest.mark.parametrize("period_s", [30, 60, 120])
def test_a_sawtooth_of_batches_does_not_rise(period_s: int) -> None:
    teeth = [500.0 * (second % period_s) / period_s for second in range(2_000)]

    assert first_alarm_s(teeth) is None


def test_a_tooth_longer_than_the_window_does_rise() -> None:
    # Not a false alarm by the definition: it grows monotonically for longer than N minutes.
    assert first_alarm_s([second / 2 for second in range(1_500)]) is not None


def test_a_daily_wave_rises_until_there_is_a_day_before_to_compare_with() -> None:
    def depth(second: int) -> float:
        return 5_000 - 5_000 * math.cos(2 * math.pi * second / 86_400)

    morning = [depth(second) for second in range(2 * 3_600, 2 * 3_600 + 600)]
    highest = max(depth(second) for second in range(3_600, 3 * 3_600 + 600))

    assert trend_of(morning).is_rising
    assert not trend_of(morning, day_before=highest).is_rising
    assert trend_of([3 * value for value in morning], day_before=highest).is_rising


def test_growth_that_has_already_fallen_back_does_not_rise() -> None:
    trend = trend_of([float(second) for second in range(595)] + [0.0] * 5)

    assert trend.p_value < 0.05
    assert not trend.is_rising


def test_too_short_a_series_is_not_judged() -> None:
    assert trend_of([]) == Trend()
    assert trend_of([9.0]) == Trend()
    assert trend_of([float(second) for second in range(500)]) == Trend()


def test_values_that_are_no_numbers_are_left_out() -> None:
    values = [float(second) for second in range(600)]
    values[100:120] = [math.nan] * 20
    values[300] = math.inf
    values[-1] = math.nan

    trend = trend_of(values)

    assert trend.is_rising
    assert trend.last == 598.0
    assert math.isfinite(trend.slope_per_s)
    assert trend_of([math.nan] * 600) == Trend()


def test_a_gap_of_two_parts_is_bridged_and_a_longer_one_is_not() -> None:
    points = series([float(second) for second in range(600)])

    assert rising(points[:240] + points[350:], window_s=WINDOW_S).is_rising
    assert rising(points[:240] + points[450:], window_s=WINDOW_S) == Trend()


def test_a_slower_sampler_sees_the_same() -> None:
    trend = rising(series([30.0 * i for i in range(20)], step_s=30), window_s=WINDOW_S)

    assert trend.is_rising
    assert trend.slope_per_s == pytest.approx(1.0)


def test_a_window_of_one_minute_has_parts_of_seconds() -> None:
    trend = rising(series([float(second) for second in range(60)]), window_s=60)

    assert trend.is_rising
    assert trend.slope_per_s == pytest.approx(1.0)


def test_only_the_window_counts() -> None:
    trend = trend_of([9_000.0] * 500 + [float(second) for second in range(600)])

    assert trend.first == 0.0
    assert trend.is_rising


def test_points_before_a_clock_that_ran_backwards_do_not_count() -> None:
    points = series([float(second) for second in range(600)])
    stepped = points[:300] + [(at_ms - 30_000, value) for at_ms, value in points[300:]]

    assert rising(stepped, window_s=WINDOW_S) == Trend()


def test_a_clock_that_jumped_forward_leaves_a_gap_and_no_alarm() -> None:
    points = series([float(second) for second in range(600)])
    jumped = points[:590] + [(at_ms + 3_600_000, value) for at_ms, value in points[590:]]

    assert rising(jumped, window_s=WINDOW_S) == Trend()


def test_the_time_to_drain_comes_from_the_slope_and_its_interval() -> None:
    trend = Trend(slope_per_s=-2.0, interval=(-4.0, -1.0), last=120.0)

    assert time_to_drain_s(trend) == (30.0, 60.0, 120.0)


def test_a_drain_that_is_not_certain_has_no_latest_time() -> None:
    trend = Trend(slope_per_s=-2.0, interval=(-4.0, 0.5), last=120.0)

    assert time_to_drain_s(trend) == (30.0, 60.0, None)


def test_a_queue_that_does_not_shrink_never_drains() -> None:
    assert time_to_drain_s(Trend(slope_per_s=0.0, last=5.0)) is None
    assert time_to_drain_s(Trend(slope_per_s=1.0, last=5.0)) is None
    assert time_to_drain_s(Trend(slope_per_s=1.0, last=0.0)) == (0.0, 0.0, 0.0)


# Noisy hours: 3,600 s in samples of 5 s, judged every 30 s, as a bench on days does it.
SAMPLE_S = 5


def noisy(rng: random.Random, level: float) -> float:
    return max(0.0, level + rng.gauss(0, 0.05 * level + 3))


def alarms(values: list[float]) -> list[int]:
    points = series(values, step_s=SAMPLE_S)
    ends = range(120, len(points) + 1, 6)
    return [end * SAMPLE_S for end in ends if is_alarm(points[end - 120 : end])]


def test_monotonic_growth_among_noise_is_found_within_the_window_and_one_sample() -> None:
    rng = random.Random(4)

    found = 0
    for _ in range(100):
        base, per_window = rng.uniform(0, 300), rng.uniform(1.0, 10.0)
        rise = per_window * max(60.0, 0.5 * base)
        calm = [noisy(rng, base) for _ in range(120)]
        growth = [noisy(rng, base + rise * (i + 1) / 120) for i in range(126)]
        found += any(at_s <= 600 + 600 + 30 for at_s in alarms(calm + growth))

    assert found >= 99


def test_noise_alone_raises_few_alarms() -> None:
    rng = random.Random(5)

    hours_with_alarm = 0
    for _ in range(60):
        base = rng.uniform(0, 500)
        hours_with_alarm += bool(alarms([noisy(rng, base) for _ in range(720)]))

    assert hours_with_alarm == 0


def spike(rng: random.Random, *, grows_s: int, drains_s: int) -> list[float]:
    height, grows, drains = rng.uniform(100, 5_000), grows_s // SAMPLE_S, drains_s // SAMPLE_S
    levels = [5.0] * 200
    levels += [height * (i + 1) / grows for i in range(grows)]
    levels += [height * (1 - i / drains) for i in range(drains)]
    return [noisy(rng, level) for level in [*levels, *[5.0] * 200]]


@pytest.mark.parametrize(
    ("shortest_s", "longest_s", "most_alarms"),
    [(10, 120, 4), (120, 240, 20), (240, 360, 42), (360, 590, 100)],
)
def test_the_shorter_a_noisy_spike_grows_the_less_often_it_is_an_alarm(
    shortest_s: int, longest_s: int, most_alarms: int
) -> None:
    # A rise of more than half the window cannot be told from one that goes on: not yet.
    rng = random.Random(6)

    hours_with_alarm = 0
    for _ in range(100):
        grows_s = rng.randrange(shortest_s, longest_s)
        hours_with_alarm += bool(alarms(spike(rng, grows_s=grows_s, drains_s=750)))

    assert hours_with_alarm <= most_alarms


@pytest.mark.parametrize(
    ("shortest_s", "longest_s", "most_alarms"), [(20, 240, 0), (240, 400, 11), (400, 590, 5)]
)
def test_noisy_sawtooth_batches_raise_few_alarms(
    shortest_s: int, longest_s: int, most_alarms: int
) -> None:
    rng = random.Random(7)

    hours_with_alarm = 0
    for _ in range(100):
        height, period = rng.uniform(100, 5_000), rng.randrange(shortest_s, longest_s) // SAMPLE_S
        teeth = [noisy(rng, height * (i % period) / period) for i in range(720)]
        hours_with_alarm += bool(alarms(teeth))

    assert hours_with_alarm <= most_alarms


def test_wide_noise_raises_few_alarms() -> None:
    rng = random.Random(8)

    hours_with_alarm = 0
    for _ in range(60):
        base = rng.uniform(0, 500)
        values = [max(0.0, base + rng.gauss(0, 0.2 * base + 5)) for _ in range(720)]
        hours_with_alarm += bool(alarms(values))

    assert hours_with_alarm == 0
