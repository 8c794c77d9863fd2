"""Whatever devices, shop, clock and processes do, in any order: what is published is the exact sum of what was
accepted, nothing counts twice, nobody is refused without a reason, and every round comes to an end."""

import tempfile
from pathlib import Path

import numpy as np
from hushrec_privacy.errors import FleetError
from hushrec_server.refusals import Reason
from hushrec_server.rounds.admission import CheckIn
from hushrec_server.rounds.states import PHASES, State
from hushrec_server.schema import DEVICE, MESSAGE, RESULT
from hushrec_server.service import FleetService
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from tests.small_fleet import ROUND_S, START, SmallFleet, raw_sum

DEVICES = range(7)  # the cohort is five
device, phase = st.sampled_from(DEVICES), st.integers(1, 6)
action = st.one_of(
    st.tuples(st.just("check in"), device, st.just(0)),
    st.tuples(st.just("check in together"), device, st.integers(1, 10)),
    st.tuples(st.just("send"), device, phase),
    st.tuples(st.just("send wrong"), device, phase),
    st.tuples(st.just("ask"), device, phase),
    st.tuples(st.just("all send"), st.just(0), st.just(0)),
    st.tuples(st.just("tick"), st.just(0), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 60, 200, 500, ROUND_S]), st.just(0)),
    st.tuples(st.just("abort"), st.just(0), st.just(0)),
    st.tuples(st.just("new process"), st.just(0), st.just(0)),
)


class World:
    """Two processes of one server, seven devices, one clock."""

    def __init__(self, folder: Path) -> None:
        self.fleet = SmallFleet(folder, f"sqlite:///{folder / 'fleet.sqlite'}")
        self.services = [self.fleet.service(), self.fleet.service()]
        self.accepted: dict[int, set[int]] = {}  # by round: whose vector was taken

    @property
    def service(self) -> FleetService:
        """The one whose turn it is."""
        self.services.reverse()
        return self.services[0]

    def newest(self) -> tuple[int, str]:
        """Number and state of the newest round; round 0: none."""
        rounds = self.service.rounds(self.fleet.plan.plan_id)
        return (int(str(rounds[0]["round"])), str(rounds[0]["state"])) if rounds else (0, "")

    def act(self, what: str, one: int, other: int) -> None:
        """One thing that happens."""
        plan, (number, state) = self.fleet.plan.plan_id, self.newest()
        if what == "check in":
            self.fleet.check_in(self.service, one)
        elif what == "check in together":
            self.check_in_together([(one + step) % len(DEVICES) for step in range(other)])
        elif what == "send":
            self.fleet.send(self.service, other, one, round_number=number)
            if other == 4:
                self.accepted.setdefault(number, set()).add(one)
        elif what == "send wrong":
            self.service.upload(plan, number, other, self.fleet.pseudonym(one), b"no message of this protocol")
        elif what == "ask":
            self.service.reply(plan, number, other, self.fleet.pseudonym(one))
        elif what == "all send":
            self.all_send(state)
        elif what == "tick":
            self.service.tick()
        elif what == "wait":
            self.fleet.clock.now += one
        elif what == "abort":
            self.service.abort(plan, number)
        else:
            self.services.pop().database.close()
            self.services.append(self.fleet.service())

    def check_in_together(self, devices: list[int]) -> None:
        """A group, in which a device may be twice: each has its own place, or is refused."""
        asked = [(self.fleet.pseudonym(one), self.fleet.certificate(one)) for one in devices]
        places: dict[int, int] = {}
        for one, found in zip(devices, self.service.check_ins(self.fleet.plan.plan_id, asked), strict=True):
            if isinstance(found, CheckIn):
                assert places.setdefault(one, found.index) == found.index
            else:
                assert isinstance(found, FleetError)
                check_refusal(found)
        assert len(set(places.values())) == len(places)

    def all_send(self, state: str) -> None:
        """Devices come and answer whatever is open: so that rounds get somewhere."""
        open_phase = PHASES.index(State(state)) + 1 if state in PHASES else 1
        for one in DEVICES:
            try:
                if open_phase == 1:
                    self.act("check in", one, 0)
                self.act("send", one, open_phase)
            except FleetError as error:
                check_refusal(error)
        self.service.tick()

    def check(self) -> None:
        """What must hold at every moment."""
        with self.service.database.reading() as connection:
            most = (
                connection.execute(select(func.count()).select_from(DEVICE).group_by(DEVICE.c.number)).scalars().all()
            )
            results = connection.execute(select(RESULT)).all()
        assert all(count <= 5 for count in most)
        for result in results:
            total = raw_sum(self.service, self.fleet.plan, result.number, result.noised, self.fleet.seal_key)
            expected = sum(self.fleet.vector(one) for one in self.accepted[result.number])
            np.testing.assert_array_equal(total, expected)
            assert result.survivors == len(self.accepted[result.number]) >= self.fleet.plan.min_cohort
        spent = self.service.ledger.plan(self.fleet.plan.plan_id)
        assert spent.rounds == len(results)

    def end(self) -> None:
        """However it was left, everything comes to an end, and nothing of a device stays."""
        self.fleet.clock.now += ROUND_S
        for _ in range(8):
            self.service.tick()
            self.fleet.clock.now += ROUND_S
        with self.service.database.reading() as connection:
            assert connection.execute(select(func.count()).select_from(DEVICE)).scalar_one() == 0
            assert connection.execute(select(func.count()).select_from(MESSAGE)).scalar_one() == 0
        assert {str(each["state"]) for each in self.service.rounds(self.fleet.plan.plan_id)} <= {"published", "aborted"}
        self.check()


def check_refusal(error: FleetError) -> None:
    assert error.reason in {*Reason, "not-found"}  # an abort before there is any round
    wants_to_come_back = error.reason in (Reason.NOT_NOW, Reason.ROUND_FULL, Reason.PLAN_HALTED)
    assert (error.retry_after_s is not None) is wants_to_come_back


@settings(max_examples=25)
@given(st.lists(action, max_size=60))
def test_any_order_of_events_keeps_every_promise(actions: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            for each in actions:
                try:
                    world.act(*each)
                except FleetError as error:
                    check_refusal(error)
                world.check()
            world.end()
        finally:
            for service in world.services:
                service.database.close()


def test_a_round_that_nobody_disturbs_is_reached_by_these_actions() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for _ in range(7):
            world.act("all send", 0, 0)
            world.check()
        assert world.newest() == (1, "published")
        assert world.fleet.clock.now == START
        world.end()
        for service in world.services:
            service.database.close()
