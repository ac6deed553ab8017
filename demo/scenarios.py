"""What the load generator plays: phases with a rate of orders and a mood of the warehouse. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from demo.receivers import Mode

MOST_ORDERS_PER_S = 100.0
MOST_ORDERS = 20_000
"""What one run of the load generator places at most, the gentle load after it included."""

GENTLE_ORDERS_PER_S = 1.0
"""The load after a scenario, until somebody ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One act: for so long, so many orders, while the warehouse answers like that.

    `says` is what happens, `look` what to look at on the page. With `replays` it begins
    by replaying the dead letters of the webhooks, as far as the viewer has left any.
    """

    name: str
    duration_s: float
    orders_per_s: float
    warehouse: Mode = Mode.OK
    replays: bool = False
    says: str
    look: str

    @property
    def orders(self) -> int:
        """How many orders it places if all goes well."""
        return round(self.duration_s * self.orders_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Phases, one after the other."""

    name: str
    phases: tuple[Phase, ...]

    @property
    def duration_s(self) -> float:
        """How long it takes in all."""
        return sum(phase.duration_s for phase in self.phases)

    @property
    def orders(self) -> int:
        """How many orders it places if all goes well."""
        return sum(phase.orders for phase in self.phases)


_STEADY = Phase(
    name="steady",
    duration_s=30,
    orders_per_s=5,
    says="a quiet day: five orders a second, four jobs each",
    look="every queue is near depth 0; open one and see its last jobs",
)
_SPIKE = Phase(
    name="spike",
    duration_s=50,
    orders_per_s=40,
    warehouse=Mode.SLOW,
    says="a sale starts, and the warehouse answers slowly: orders come faster than it takes them",
    look="the depth of webhooks climbs and would never be 0 again; after some 20 seconds an alert fires",
)
_DRAIN = Phase(
    name="drain",
    duration_s=28,
    orders_per_s=2,
    warehouse=Mode.SLOW,
    says="the sale is over: the warehouse is still slow, but the backlog drains",
    look="depth falls, 'empty in' says when all is done, and the alert goes away",
)
_OUTAGE = Phase(
    name="outage",
    duration_s=24,
    orders_per_s=4,
    warehouse=Mode.FAIL,
    says="the warehouse is down: attempts fail, back off, and after four a job is a dead letter",
    look="webhooks: failure rate, delayed jobs, then dead letters; customers still get their 202",
)
_SILENCE = Phase(
    name="silence",
    duration_s=8,
    orders_per_s=3,
    warehouse=Mode.HANG,
    says="now it takes the call and never answers: attempts end by their time-out",
    look="webhooks: processing time p95 jumps to two seconds",
)
_RECOVERY = Phase(
    name="recovery",
    duration_s=20,
    orders_per_s=3,
    says="the warehouse is back: what was still retrying succeeds, dead letters wait for you",
    look="open Dead letters, webhooks, and click Replay; in 20 seconds we do it for you",
)
_REPLAY = Phase(
    name="replay",
    duration_s=10,
    orders_per_s=3,
    replays=True,
    says="the dead letters run again, and this time the warehouse packs them, once each",
    look="webhooks has no dead letters left; a replayed job shows its attempts and says 'completed'",
)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="steady", phases=(_STEADY,)),
        Scenario(name="spike", phases=(_SPIKE, _DRAIN)),
        Scenario(name="outage", phases=(_OUTAGE, _SILENCE, _RECOVERY, _REPLAY)),
        Scenario(
            name="tour", phases=(_STEADY, _SPIKE, _DRAIN, _OUTAGE, _SILENCE, _RECOVERY, _REPLAY)
        ),
    )
}
