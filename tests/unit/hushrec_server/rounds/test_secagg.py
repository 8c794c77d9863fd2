"""The whole server with real secure aggregation: the exact sum of the survivors, whoever drops out."""

import numpy as np
import pytest
from hushrec_privacy.enrolment import Identity
from hushrec_privacy.errors import PlanError
from hushrec_privacy.secagg import SecAggDevice, Session
from hushrec_server.rounds.states import PHASES
from hushrec_server.schema import RESULT
from hushrec_server.service import FleetService
from sqlalchemy import select

from tests.small_fleet import ROUND_S, SmallFleet, raw_sum


@pytest.fixture
def fleet(fleet: SmallFleet) -> SmallFleet:
    """The same with SecAgg+, which the server takes by itself."""
    fleet.aggregation = None
    return fleet


def device(fleet: SmallFleet, service: FleetService, number: int) -> SecAggDevice:
    told = service.check_in(fleet.plan.plan_id, fleet.pseudonym(number), fleet.certificate(number))
    identity: Identity = fleet.identity(number)
    return SecAggDevice(Session.decode(told.session), identity, fleet.certificate(number), cohort_floor=2)


def run(fleet: SmallFleet, service: FleetService, leaving: dict[int, int]) -> None:
    """A round of five, of which some say nothing from a phase on."""
    devices = {number: device(fleet, service, number) for number in range(5)}
    answers = dict.fromkeys(devices, b"")
    for phase, step in enumerate(("advertise", "choose", "share", "mask", "agree", "reveal"), start=1):
        devices = {number: each for number, each in devices.items() if leaving.get(number, 7) > phase}
        for number, each in devices.items():
            given = [answers[number]] if phase > 1 else []
            if phase == 4:
                given.append(fleet.vector(number))  # type: ignore[arg-type]
            message = getattr(each, step)(*given)
            assert len(message) <= service.message_bytes(fleet.plan.plan_id, 1, phase)
            service.upload(fleet.plan.plan_id, 1, phase, fleet.pseudonym(number), message)
        service.tick()
        if fleet.state(service) == PHASES[phase - 1]:
            fleet.clock.now += ROUND_S // 2
            service.tick()
        if phase < 6:
            for number in devices:
                reply = service.reply(fleet.plan.plan_id, 1, phase, fleet.pseudonym(number))
                assert reply is not None
                answers[number] = reply


@pytest.mark.parametrize(
    ("leaving", "counted"),
    [
        ({}, range(5)),
        ({1: 1}, (0, 2, 3, 4)),
        ({2: 2}, (0, 1, 3, 4)),
        ({4: 4}, range(4)),
        ({0: 5}, range(5)),
        ({3: 6}, range(5)),
    ],
)
def test_the_sum_is_that_of_all_whose_vector_came(
    fleet: SmallFleet, service: FleetService, leaving: dict[int, int], counted: tuple[int, ...]
) -> None:
    run(fleet, service, leaving)
    assert fleet.state(service) == "published"
    with service.database.reading() as connection:
        result = connection.execute(select(RESULT)).one()
    total = raw_sum(service, fleet.plan, 1, result.noised, fleet.seal_key)
    np.testing.assert_array_equal(total, sum(fleet.vector(number) for number in counted))
    assert result.survivors == len(counted)


def test_a_plan_that_secure_aggregation_cannot_carry_out_is_refused(fleet: SmallFleet) -> None:
    service = fleet.service(add_plan=False)
    fleet.with_plan(min_cohort=1)
    with pytest.raises(PlanError, match="cannot be carried out"):
        service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    service.database.close()
