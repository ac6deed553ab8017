from __future__ import annotations

import logging

import pytest

from dashboard.alerts.engine import AlertEngine
from dashboard.alerts.rules import Severity
from dashboard.observer.snapshot import QueueFigures, Rates
from dashboard.settings import Settings
from tests.queue_figures import MAIL, NOW_MS, figures, worker
from tickbird.job import JobState, QueueRef

RISING = [100 + second for second in range(600)]
MEDIA = QueueRef("media", "shop")
FAILING = Rates(window_s=60, attempts=100, failed_attempts=20, failure_rate=0.2)
RECOVERED = Rates(window_s=60, attempts=100, failed_attempts=1, failure_rate=0.01)


@pytest.fixture
def engine() -> AlertEngine:
    return AlertEngine(Settings())


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="dashboard.alerts")


def served(depths: list[int], queue: QueueRef = MAIL) -> QueueFigures:
    return figures(queue=queue, depths=depths, workers=[worker()], counts={JobState.ACTIVE: 1})


def test_each_transition_is_logged_once(
    engine: AlertEngine, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(3):
        assert len(engine.evaluate([served(RISING)], NOW_MS + second * 1_000)) == 1
    for second in range(3, 6):
        assert engine.evaluate([served([5])], NOW_MS + second * 1_000) == ()

    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "WARNING",
            (
                "alert firing rule=depth_rising queue=mail severity=warning: mail has been rising "
                "for 10 minutes: 100 -> 699 waiting; it will not drain at this rate"
            ),
        ),
        ("INFO", "alert resolved rule=depth_rising queue=mail after 3 seconds"),
    ]


def test_an_alert_that_becomes_critical_is_logged_again(
    engine: AlertEngine, caplog: pytest.LogCaptureFixture
) -> None:
    dead = figures(depths=RISING, rates=Rates(window_s=60))

    engine.evaluate([served(RISING)], NOW_MS)
    engine.evaluate([dead], NOW_MS + 1_000)
    engine.evaluate([served(RISING)], NOW_MS + 2_000)

    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_the_worst_and_then_the_oldest_come_first(engine: AlertEngine) -> None:
    failing = figures(queue=MEDIA, rates=FAILING)
    dead = figures(queue=QueueRef("dead"), depths=RISING, rates=Rates(window_s=60))

    engine.evaluate([failing], NOW_MS)
    alerts = engine.evaluate([dead, served(RISING), failing], NOW_MS + 1_000)

    assert [(a.queue.label, a.severity) for a in alerts] == [
        ("dead", Severity.CRITICAL),
        ("shop:media", Severity.WARNING),
        ("mail", Severity.WARNING),
    ]


def test_queues_do_not_share_states(engine: AlertEngine) -> None:
    other = QueueRef("mail", "other")

    engine.evaluate([figures(rates=FAILING), figures(queue=other, rates=RECOVERED)], NOW_MS)
    alerts = engine.evaluate(
        [figures(rates=RECOVERED), figures(queue=other, rates=FAILING)], NOW_MS + 1_000
    )

    assert {(a.queue, a.since_ms) for a in alerts} == {(MAIL, NOW_MS), (other, NOW_MS + 1_000)}


def test_the_states_of_a_queue_that_went_are_dropped(
    engine: AlertEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.evaluate([figures(rates=FAILING)], NOW_MS)
    assert engine.evaluate([], NOW_MS + 1_000) == ()
    (reborn,) = engine.evaluate([figures(rates=FAILING)], NOW_MS + 2_000)

    assert reborn.since_ms == NOW_MS + 2_000
    assert [r.getMessage().split(" rule=")[0] for r in caplog.records] == [
        "alert firing",
        "alert resolved",
        "alert firing",
    ]


def test_a_queue_that_cannot_be_read_keeps_its_alert_and_spoils_no_other(
    engine: AlertEngine,
) -> None:
    media_fails = figures(queue=MEDIA, rates=FAILING)

    engine.evaluate([figures(rates=FAILING), media_fails], NOW_MS)
    alerts = engine.evaluate([figures(error="WRONGTYPE"), media_fails], NOW_MS + 1_000)

    assert {a.queue for a in alerts} == {MAIL, MEDIA}


def test_the_settings_set_the_limits() -> None:
    engine = AlertEngine(Settings(alert_failure_rate=0.3, alert_window_s=60))

    alerts = engine.evaluate([figures(depths=RISING[:60], rates=FAILING)], NOW_MS)

    assert [a.rule for a in alerts] == ["depth_rising"]


def test_a_name_with_a_newline_stays_on_its_line_of_the_log(
    engine: AlertEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.evaluate([figures(queue=QueueRef("a\nalert resolved"), rates=FAILING)], NOW_MS)

    assert "\n" not in caplog.records[0].getMessage()


def test_two_engines_do_not_notice_each_other(engine: AlertEngine) -> None:
    engine.evaluate([figures(rates=FAILING)], NOW_MS)

    (alert,) = AlertEngine(Settings()).evaluate([figures(rates=FAILING)], NOW_MS + 9_000)

    assert alert.since_ms == NOW_MS + 9_000
