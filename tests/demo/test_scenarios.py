from __future__ import annotations

import pytest

from demo.__main__ import _WORKERS
from demo.receivers import _SLOW_S, Mode
from demo.scenarios import MOST_ORDERS, MOST_ORDERS_PER_S, SCENARIOS, Scenario

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


def test_the_tour_shows_all_the_others_within_three_minutes() -> None:
    tour = SCENARIOS["tour"]
    others = [s for name, s in SCENARIOS.items() if name != "tour"]

    assert tour.duration_s <= 180
    assert list(tour.phases) == [phase for other in others for phase in other.phases]


@every_scenario
def test_rates_and_totals_are_bounded(scenario: Scenario) -> None:
    assert all(0 < phase.orders_per_s <= MOST_ORDERS_PER_S for phase in scenario.phases)
    assert all(phase.duration_s > 0 for phase in scenario.phases)
    assert scenario.orders < MOST_ORDERS


@every_scenario
def test_each_phase_says_what_happens_and_where_to_look(scenario: Scenario) -> None:
    assert all(phase.says and phase.look for phase in scenario.phases)


def test_a_spike_makes_a_backlog_that_its_drain_clears() -> None:
    spike, drain = SCENARIOS["spike"].phases
    slots = int(_WORKERS["worker-1"][-1])  # the only ones that serve webhooks
    webhooks_per_s = slots / _SLOW_S
    backlog = (spike.orders_per_s - webhooks_per_s) * spike.duration_s

    assert spike.warehouse is drain.warehouse is Mode.SLOW
    assert backlog > 300
    assert (webhooks_per_s - drain.orders_per_s) * drain.duration_s > backlog


def test_an_outage_outlasts_all_attempts_of_a_webhook() -> None:
    from demo.tasks import tell_warehouse  # noqa: PLC0415 - makes the demo's app

    retry = tell_warehouse.retry
    longest_s = sum(retry.backoff.base_ms * 2**n for n in range(retry.attempts - 1)) / 1_000
    outage = SCENARIOS["outage"].phases[0]

    assert outage.warehouse is Mode.FAIL
    assert outage.duration_s > 2 * longest_s


def test_dead_letters_are_replayed_after_the_viewer_had_a_chance() -> None:
    *_, recovery, replay = SCENARIOS["outage"].phases

    assert not recovery.replays
    assert recovery.duration_s >= 15
    assert replay.replays
