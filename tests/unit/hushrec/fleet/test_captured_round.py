"""Every byte that devices send to the real server, and what its database holds of it: no single vector can be read."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hushrec.messages import (
    DEVICE_HEADER,
    CheckInAnswer,
    padded_bytes,
    path_of,
    phase_number,
    read_packed,
    upload_route,
)
from hushrec_privacy.envelope import Context, open_sealed
from hushrec_privacy.secagg import Phase, Session, message_size
from hushrec_server.rounds.aggregation import Outcome
from hushrec_server.schema import MESSAGE
from numpy.typing import NDArray
from sqlalchemy import select

from tests.curious_server import CuriousServer, chi_square
from tests.whole_fleet import RememberedSums, WholeFleet, devices_of, made

COORDINATES = 12_800
FAR = 7  # standard deviations

Uploads = dict[Phase, dict[int, bytes]]


class Request(NamedTuple):
    """What came and what was answered."""

    path: str
    device: str
    body: bytes
    answer: bytes


class Recorded:
    """An application, and all that passes through it."""

    def __init__(self, app: Any) -> None:
        self._app, self.requests = app, list[Request]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        came, went = bytearray(), bytearray()

        async def received() -> Any:
            message = await receive()
            came.extend(message.get("body", b""))
            return message

        async def sent(message: Any) -> None:
            went.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, received, sent)
        device = dict(scope["headers"]).get(DEVICE_HEADER.lower().encode(), b"").decode()
        if scope["method"] == "POST":
            self.requests.append(Request(scope["path"], device, bytes(came), bytes(went)))


class StoredUploads(RememberedSums):
    """Secure aggregation that reads, before it ends a round, what the database has of it."""

    def __init__(self, fleet: WholeFleet) -> None:
        super().__init__()
        self._fleet, self.uploads = fleet, defaultdict[Phase, dict[int, bytes]](dict)

    def finish(
        self, session: bytes, state: bytes, total: NDArray[np.uint64], reveals: Iterable[tuple[int, bytes]]
    ) -> Outcome:
        with self._fleet.service.database.reading() as connection:
            for row in connection.execute(select(MESSAGE)):
                self.uploads[Phase(row.phase)][row.place] = bytes(row.body)
        return super().finish(session, state, total, reveals)


def opened(fleet: WholeFleet, requests: list[Request]) -> tuple[Session, Uploads]:
    """The messages in the sealed bodies, by phase and index, for whoever has the server's key."""
    plan, found = fleet.plan.plan_id, defaultdict[Phase, dict[int, bytes]](dict)
    check_in = path_of("check-in", plan=plan)
    places = {each.device: read_packed(each.answer, CheckInAnswer) for each in requests if each.path == check_in}
    session = Session.decode(next(iter(places.values())).session)
    for each in requests:
        if each.path != check_in:
            number = phase_number(each.path.rpartition("/")[2])
            context = Context("shop", upload_route(number), plan, 1, each.device)
            size = padded_bytes(message_size(session, Phase(number)))
            message = open_sealed((fleet.envelope_key,), context, each.body, size)
            found[Phase(number)][places[each.device].index] = message
    return session, found


def test_with_its_keys_its_database_and_every_request_the_server_reads_nothing_but_the_sum(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", parameters=COORDINATES)
    fleet.sums = stored = StoredUploads(fleet)
    fleet.open()
    fleet.app = recorded = Recorded(fleet.app)
    devices = devices_of(fleet)
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    session, uploads = opened(fleet, recorded.requests)
    assert {phase: len(messages) for phase, messages in uploads.items()} == dict.fromkeys(Phase, 6)
    assert stored.uploads == uploads, "the database holds the messages, and nothing else of them"
    server, bits = CuriousServer(session, uploads, {}), session.ring_bits
    left = [server.left(index) for index in server.survivors]
    total = np.array(left).sum(axis=0) % 2**bits
    np.testing.assert_array_equal(total, made(devices, 1) % 2**bits)
    for vector in left:
        assert abs(chi_square(vector, bits)) < FAR
        assert abs(chi_square((total - vector) % 2**bits, bits)) < FAR
        assert max(abs(chi_square((vector - one.given.made[1]) % 2**bits, bits)) for one in devices) < FAR
    assert all(chi_square(one.given.made[1] % 2**bits, bits) > 100 for one in devices), "bare, they are told at once"
