from __future__ import annotations

from itertools import pairwise

import pytest

from dashboard.alerts.rules import (
    QUIET,
    Alert,
    DeadLettersExpiring,
    DepthRising,
    FailureRate,
    Rule,
    Severity,
    State,
    evaluate,
    in_words,
    printable,
)
from dashboard.alerts.trend import rising
from dashboard.observer.snapshot import QueueFigures, Rates
from tests.queue_figures import MAIL, NOW_MS, figures, worker
from tickbird import InvalidOption, JobState, QueueRef

RISING = [120 + 3 * second for second in range(600)]


def replay(rule: Rule, depths: list[int]) -> list[Alert | None]:
    """What a rule says second by second while a served queue's depth goes through `depths`."""
    state, alerts = QUIET, []
    for end in range(1, len(depths) + 1):
        now_ms = NOW_MS + end * 1_000
        state, alert = evaluate(rule, served(depths[:end], at_ms=now_ms), state, now_ms)
        alerts.append(alert)
    return alerts


def transitions(alerts: list[Alert | None]) -> int:
    fires = [alert is not None for alert in [None, *alerts]]
    return sum(a != b for a, b in pairwise(fires))


def served(depths: list[int], *, at_ms: int = NOW_MS) -> QueueFigures:
    return figures(
        depths=depths, at_ms=at_ms, workers=[worker(busy=1)], counts={JobState.ACTIVE: 1}
    )


def failing(failed: int, attempts: int, *, at_ms: int = NOW_MS, dead: float = 0) -> QueueFigures:
    return figures(
        at_ms=at_ms,
        rates=Rates(
            window_s=60.0,
            attempts=attempts,
            failed_attempts=failed,
            failed_per_min=dead,
            failure_rate=failed / attempts if attempts else None,
        ),
    )


def fire(rule: Rule, of_queue: QueueFigures) -> tuple[State, Alert]:
    state, alert = evaluate(rule, of_queue, QUIET, of_queue.sample.at_ms)
    assert alert is not None
    return state, alert


def test_a_rising_queue_says_since_when_how_bad_and_what_comes() -> None:
    _, alert = fire(DepthRising(), served(RISING))

    assert alert == Alert(
        rule="depth_rising",
        queue=MAIL,
        severity=Severity.WARNING,
        since_ms=NOW_MS,
        summary=(
            "mail has been rising for 10 minutes: 120 -> 1,917 waiting; "
            "it will not drain at this rate"
        ),
        forecast="At +180 a minute 3,717 will wait in 10 minutes.",
    )


def test_the_summary_goes_on_from_where_the_rise_began() -> None:
    alerts = replay(DepthRising(), [120 + 3 * second for second in range(720)])

    assert alerts[-1] is not None
    assert alerts[-1].summary.startswith(
        "mail has been rising for 12 minutes: 120 -> 2,277 waiting"
    )


def test_a_steady_queue_is_quiet() -> None:
    assert evaluate(DepthRising(), served([500] * 600), QUIET, NOW_MS) == (QUIET, None)


def test_a_burst_that_is_not_older_than_half_the_window_is_quiet() -> None:
    burst = [5] * 400 + [5 + 10 * second for second in range(200)]

    assert evaluate(DepthRising(), served(burst), QUIET, NOW_MS) == (QUIET, None)


@pytest.mark.parametrize(
    ("of_queue", "severity", "cause"),
    [
        (
            figures(depths=RISING, rates=Rates(window_s=60)),
            Severity.CRITICAL,
            "no worker serves it",
        ),
        (
            figures(depths=RISING, rates=Rates(window_s=60), foreign_workers=1),
            Severity.CRITICAL,
            "its workers finish nothing",
        ),
        (
            figures(depths=RISING, rates=Rates(window_s=60), paused=True),
            Severity.WARNING,
            "it is paused",
        ),
        (
            figures(
                depths=RISING,
                rates=Rates(window_s=60),
                workers=[worker()],
                counts={JobState.ACTIVE: 3},
            ),
            Severity.WARNING,
            "it will not drain at this rate",
        ),
    ],
)
def test_a_rising_queue_that_nobody_works_on_is_critical(
    of_queue: QueueFigures, severity: Severity, cause: str
) -> None:
    _, alert = fire(DepthRising(), of_queue)

    assert alert.severity is severity
    assert alert.summary.endswith(cause)


def test_a_critical_alert_never_becomes_milder_while_it_fires() -> None:
    state, _ = fire(DepthRising(), figures(depths=RISING, rates=Rates(window_s=60)))

    _, alert = evaluate(DepthRising(), served(RISING), state, NOW_MS)

    assert alert is not None
    assert alert.severity is Severity.CRITICAL


def test_an_alert_outlives_a_short_calm_and_resolves_after_a_long_one() -> None:
    plateau = [*RISING, *[RISING[-1]] * 1_000]

    alerts = replay(DepthRising(), plateau)

    assert transitions(alerts) == 2
    assert alerts[600] is not None
    assert alerts[-1] is None


def test_a_calm_alert_says_so_and_when_the_queue_will_be_empty() -> None:
    depths = [*RISING, *[RISING[-1] - 2 * second for second in range(500)]]

    alerts = replay(DepthRising(), depths)

    calm = [a for a in alerts if a is not None and "it rises no longer" in a.summary]
    assert calm
    assert calm[-1].summary.startswith("mail has risen within ")
    assert any(a.forecast.startswith("It drains in about ") for a in calm)


def test_an_alert_resolves_at_once_when_the_queue_is_back_where_it_began() -> None:
    state, _ = fire(DepthRising(), served(RISING))

    emptied = served([*RISING[1:], 100], at_ms=NOW_MS + 1_000)

    assert evaluate(DepthRising(), emptied, state, NOW_MS + 1_000) == (QUIET, None)


def test_growth_on_the_edge_of_the_noise_floor_does_not_flap() -> None:
    # About ten jobs per window, now a little more, now a little less.
    edge = [50 + second // 58 + (second // 45) % 2 for second in range(2_400)]

    points = [(NOW_MS + second * 1_000, float(depth)) for second, depth in enumerate(edge)]
    verdicts = [
        rising(points[end - 600 : end], window_s=600).is_rising for end in range(600, len(edge))
    ]

    assert sum(a != b for a, b in pairwise(verdicts)) > 10
    assert transitions(replay(DepthRising(), edge)) == 1


def test_a_window_longer_than_the_seconds_kept_is_judged_by_the_minutes() -> None:
    rule = DepthRising(window_s=1_800)
    minutes = [100 + 60 * minute for minute in range(40)]

    _, alert = fire(rule, figures(depths=[2_440] * 600, minutes=minutes))

    assert "rising for 29 minutes" in alert.summary


def test_a_queue_that_cannot_be_read_changes_nothing() -> None:
    state, alert = fire(DepthRising(), served(RISING))
    corrupt = figures(depths=[0], error="WRONGTYPE")

    assert evaluate(DepthRising(), corrupt, state, NOW_MS + 1_000) == (state, alert)
    assert evaluate(DepthRising(), corrupt, QUIET, NOW_MS) == (QUIET, None)


def test_a_clock_that_runs_backwards_does_not_keep_an_alert_alive() -> None:
    rule = FailureRate()
    state, _ = fire(rule, failing(50, 100))
    state, _ = evaluate(rule, failing(0, 100), state, NOW_MS)

    back_ms = NOW_MS - 3_600_000
    state, still = evaluate(rule, failing(0, 100, at_ms=back_ms), state, back_ms)
    _, alert = evaluate(rule, failing(0, 100), state, back_ms + 60_000)

    assert still is not None
    assert alert is None


def test_a_failure_rate_over_the_threshold_is_an_alert_in_plain_words() -> None:
    _, alert = fire(FailureRate(), failing(18, 100, dead=12))

    assert alert.severity is Severity.WARNING
    assert alert.summary == (
        "mail has been failing for 1 minute: 18 of 100 attempts (18%, limit 10%) failed "
        "within 1 minute; 12 new dead letters"
    )


def test_when_half_of_the_attempts_fail_it_is_critical() -> None:
    _, alert = fire(FailureRate(), failing(50, 100, dead=1))

    assert alert.severity is Severity.CRITICAL
    assert alert.summary.endswith("1 new dead letter")


@pytest.mark.parametrize(("failed", "attempts"), [(10, 100), (19, 19), (0, 0), (0, 500)])
def test_a_low_rate_or_a_small_sample_is_no_alert(failed: int, attempts: int) -> None:
    assert evaluate(FailureRate(), failing(failed, attempts), QUIET, NOW_MS) == (QUIET, None)


def test_a_failure_rate_resolves_a_minute_after_it_fell_well_below() -> None:
    rule = FailureRate()
    state, _ = fire(rule, failing(20, 100))

    state, near = evaluate(rule, failing(9, 100), state, NOW_MS + 90_000)
    state, first = evaluate(rule, failing(1, 100), state, NOW_MS + 100_000)
    state, still = evaluate(rule, failing(1, 100), state, NOW_MS + 159_000)
    state, gone = evaluate(rule, failing(1, 100), state, NOW_MS + 160_000)

    assert near is not None
    assert first is not None
    assert first.summary.endswith("and is below the limit now")
    assert still is not None
    assert gone is None
    assert state == QUIET


def test_a_new_burst_of_failures_starts_the_calm_anew() -> None:
    rule = FailureRate()
    state, _ = fire(rule, failing(20, 100))

    for second, failed in [(10, 1), (50, 20), (80, 1), (139, 1)]:
        state, alert = evaluate(rule, failing(failed, 100), state, NOW_MS + second * 1_000)
        assert alert is not None


@pytest.mark.parametrize("window_s", [-1, 0, 9, 3_601, float("nan")])
def test_a_window_that_could_never_be_judged_is_refused(window_s: float) -> None:
    with pytest.raises(InvalidOption, match="between 10 seconds and 60 minutes"):
        DepthRising(window_s=window_s)


def test_a_window_of_an_hour_is_judged() -> None:
    minutes = [100 + 10 * minute for minute in range(60)]

    _, alert = fire(DepthRising(window_s=3_600), figures(depths=[690] * 600, minutes=minutes))

    assert alert.rule == "depth_rising"


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 10, float("nan")])
def test_a_failure_rate_that_could_never_be_exceeded_is_refused(threshold: float) -> None:
    with pytest.raises(InvalidOption, match="failure rate"):
        FailureRate(threshold=threshold)


def test_names_with_control_characters_are_made_printable() -> None:
    queue = QueueRef('a"b\nc\udc80')
    _, alert = fire(FailureRate(), figures(queue=queue, rates=failing(9, 20).rates))

    assert alert.queue == queue
    assert alert.summary.startswith(r'a"b\nc\udc80 has been failing')
    assert printable("ümlaut 邮件") == "ümlaut 邮件"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "1 minute"),
        (719, "12 minutes"),
        (7_200, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_durations_are_said_in_one_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("failed", "age_days", "severity"),
    [
        (899_999, 12.5, None),
        (900_000, 1, Severity.WARNING),
        (10, 12.7, Severity.WARNING),
        (10, 14.1, Severity.CRITICAL),
        (1_000_000, 1, Severity.CRITICAL),
        (0, None, None),
    ],
)
def test_dead_letters_are_announced_before_retention_takes_them(
    failed: int, age_days: float | None, severity: Severity | None
) -> None:
    oldest_ms = None if age_days is None else NOW_MS - round(age_days * DAY_MS)
    of_queue = figures(counts={JobState.FAILED: failed}, oldest_failed_at_ms=oldest_ms)

    _, alert = evaluate(DeadLettersExpiring(), of_queue, QUIET, NOW_MS)

    assert (alert.severity if alert else None) is severity
    if alert is not None:
        assert "replay or save what you need" in alert.summary


def test_a_shared_queue_is_not_trimmed_by_default_and_not_announced() -> None:
    of_queue = figures(counts={JobState.FAILED: 2_000_000}, is_shared=True)

    _, alert = evaluate(DeadLettersExpiring(), of_queue, QUIET, NOW_MS)

    assert alert is None


def test_the_alert_ends_when_they_are_replayed() -> None:
    full = figures(counts={JobState.FAILED: 950_000})
    state, _ = fire(DeadLettersExpiring(), full)

    state, alert = evaluate(DeadLettersExpiring(), figures(), state, NOW_MS + 1_000)

    assert (state, alert) == (QUIET, None)
