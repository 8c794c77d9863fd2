"""One round from the first check-in to the published sum."""

import numpy as np
import pytest
from hushrec_privacy.errors import FleetError
from hushrec_server.schema import DEVICE, MESSAGE, PHASE, REPLY, REPLY_BODY, RESULT
from hushrec_server.service import FleetService
from sqlalchemy import func, select

from tests.small_fleet import START, SmallFleet, raw_sum


def test_a_round_of_all_devices_ends_published_with_their_exact_sum(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5))
    assert fleet.state(service) == "published"
    with service.database.reading() as connection:
        result = connection.execute(select(RESULT)).one()
        left = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (DEVICE, MESSAGE, PHASE, REPLY, REPLY_BODY)
        ]
    assert left == [0] * 5
    assert result.survivors == 5
    total = raw_sum(service, fleet.plan, 1, result.noised, fleet.seal_key)
    np.testing.assert_array_equal(total, sum(fleet.vector(number) for number in range(5)))
    assert service.ledger.plan(fleet.plan.plan_id).last == 1


def test_devices_get_their_replies_only_when_the_phase_is_closed(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, *range(5))
    fleet.send(service, 1, *range(4))
    service.tick()
    assert service.reply(fleet.plan.plan_id, 1, 1, fleet.pseudonym(0)) is None
    fleet.send(service, 1, 4)
    assert service.reply(fleet.plan.plan_id, 1, 1, fleet.pseudonym(0)) is None
    service.tick()
    assert service.reply(fleet.plan.plan_id, 1, 1, fleet.pseudonym(0)) == b"1 closed"


def test_a_round_does_not_begin_before_its_time(fleet: SmallFleet, service: FleetService) -> None:
    fleet.clock.now = START - 50
    with pytest.raises(FleetError) as refused:
        fleet.check_in(service, 0)
    assert refused.value.reason == "not-now"
    assert refused.value.retry_after_s is not None
    assert 50 <= refused.value.retry_after_s < 50 + 125
