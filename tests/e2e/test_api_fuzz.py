"""schemathesis makes requests from the API's document and against it, for the server as `hushrec serve` assembles it.

Real service, real database, releases, and an authority: none is answered with a fault of the server, and none of them
leaves anything behind that stops the next one, or a round.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
import schemathesis
from hushrec.messages import PROBLEM_TYPE, ROUTES
from hushrec_privacy.ledger import verify
from hushrec_server.app import server_app
from hushrec_server.assembly import assemble
from hushrec_server.authority import create_authority
from hushrec_server.config import read_config
from hushrec_server.front import Front
from hushrec_server.ledger_store import DatabaseLedgerStore
from hushrec_server.openapi import openapi_document
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.asgi import Answer, ask
from tests.databases import DATABASES, database_url
from tests.fleet_plans import COUNTS, a_fleet_plan
from tests.server_folder import ServerFolder, check_in_request

_SCHEMA = schemathesis.openapi.from_dict(openapi_document())
_FOUND: list[Any] = [found.ok() for found in _SCHEMA.get_all_operations()]  # type: ignore[union-attr]
OPERATIONS = {operation.definition.raw["operationId"]: operation for operation in _FOUND}
MORE_CONFIG = """
[trust]
run_authority = "authority"
[limits]
address_per_minute = 1000000000
device_per_minute = 1000000000
"""


class Assembled:
    """The server in this process."""

    def __init__(self, folder: Path, url: str) -> None:
        self.shop = ServerFolder.prepare(folder, vector=COUNTS)  # no releases: nothing to train
        create_authority(folder / "authority")
        keys = ReleaseKeys.create(folder / "offline", self.shop.data / "online")
        ReleaseRepository.create(self.shop.data / "releases", keys, clock=time.time)
        self.shop.config.write_text(self.shop.config.read_text() + MORE_CONFIG)
        config = read_config(self.shop.config, database=url, plans=(self.shop.plan_file,))
        self.server = assemble(config, lambda _: None)
        self.token = (self.shop.data / "admin.token").read_text().strip()

    def begin(self) -> None:
        """A plan of its own, and a round of it that has begun: who has the token may have ended the last one."""
        plan = self.shop.plan = a_fleet_plan(vector=COUNTS, first_round_at=int(time.time()) - 10)
        self.server.service.add_plan(plan.encode(), self.shop.plan_key.sign(plan))
        assert self.check_in().status == 200

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        return ask(self.server.app, method, path, headers=headers, body=body)

    def check_in(self) -> Answer:
        """Of one more device."""
        method, path, headers, body = check_in_request(self.shop)
        return self.ask(method, path, headers, body)

    def check_state(self) -> None:
        """Rounds advance, the ledger is whole, and a device can come, unless the round was ended with the token."""
        service, plan = self.server.service, self.shop.plan.plan_id
        service.resume(plan)
        service.tick()
        verify(DatabaseLedgerStore(service.database))
        (round_,) = service.rounds(plan)
        assert self.check_in().status == (200 if round_["state"] == "advertise" else 429)


@pytest.fixture(scope="module", params=DATABASES)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Assembled, Front]]:
    folder, fronts = tmp_path_factory.mktemp("world"), list[Front]()
    with database_url(request.param, folder) as url, pytest.MonkeyPatch.context() as patch:

        def noted(front: Front, *more: Any, **named: Any) -> Any:
            fronts.append(front)
            return server_app(front, *more, **named, clock=lambda: 0.0)  # nothing ticks by itself here

        patch.setattr("hushrec_server.assembly.server_app", noted)
        assembled = Assembled(folder, url)
        yield assembled, fronts[0]
        assembled.server.close()


def cases(operation: Any) -> st.SearchStrategy[Any]:
    """Requests as the document says, and such as it does not."""
    both = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    return st.one_of(both)


def sent(world: Assembled, case: Any, known: set[str], *, token: bool) -> Answer:
    """One case as bytes, through the application; of `known`, plan and round, it names those that there are."""
    made = case.as_transport_kwargs(base_url="http://testserver")
    path = unquote(made["url"].removeprefix("http://testserver"))
    names = case.path_parameters or {}
    for name, value in (("plan", world.shop.plan.plan_id), ("round", "1")):
        if name in known and names.get(name):
            path = path.replace(str(names[name]), value, 1)
    body = made.get("data", b"")
    if "json" in made:
        body = json.dumps(made["json"]).encode()
    elif isinstance(body, str):
        body = body.encode()
    headers = {str(name): str(value) for name, value in (made.get("headers") or {}).items()}
    if token:
        headers["authorization"] = f"Bearer {world.token}"
    query = urlencode({str(name): str(value) for name, value in (made.get("params") or {}).items()})
    latin = {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in headers.items()}
    path = quote(path, safe="/%").encode("ascii", "replace").decode()
    return world.ask(made["method"], unquote(path) + (f"?{query}" if query else ""), latin, body)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_request_around_the_document_is_a_fault_of_the_server(world: tuple[Assembled, Front], name: str) -> None:
    run(*world, name, examples=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_request_of_many_around_the_document_is_a_fault_of_the_server(
    world: tuple[Assembled, Front], name: str
) -> None:
    run(*world, name, examples=150)


def test_every_route_is_asked() -> None:
    assert set(OPERATIONS) == set(ROUTES)


def run(world: Assembled, front: Front, name: str, *, examples: int) -> None:
    world.begin()
    room = front.room.free

    @given(case=cases(OPERATIONS[name]), known=st.sets(st.sampled_from(["plan", "round"])), token=st.booleans())
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    def each(case: Any, known: set[str], token: bool) -> None:
        answer = sent(world, case, known, token=token)
        assert 200 <= answer.status < 500, (name, answer)
        if answer.status >= 400:
            assert answer.headers["content-type"] == PROBLEM_TYPE
            assert json.loads(answer.body)["status"] == answer.status
        assert front.room.free == room

    each()
    world.check_state()
