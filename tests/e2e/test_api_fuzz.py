"""schemathesis makes requests from the API's document and against it: none is answered with a fault of the server."""

import json
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
import schemathesis
from hushrec.messages import PROBLEM_TYPE
from hushrec_server.openapi import openapi_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.asgi import Answer, ask
from tests.fake_fleet import PLAN, TOKEN, World

_SCHEMA = schemathesis.openapi.from_dict(openapi_document())
# The authority's route is another application's; files of releases need a folder.
_FOUND: list[Any] = [found.ok() for found in _SCHEMA.get_all_operations()]  # type: ignore[union-attr]
OPERATIONS = {operation.definition.raw["operationId"]: operation for operation in _FOUND}
SERVED = sorted(set(OPERATIONS) - {"certificate", "releases"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def cases(operation: Any) -> st.SearchStrategy[Any]:
    """Requests as the document says, and such as it does not."""
    both = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    return st.one_of(both)


def sent(world: World, case: Any, *, known_plan: bool, token: bool) -> Answer:
    """One case as bytes, through the application."""
    made = case.as_transport_kwargs(base_url="http://testserver")
    path = unquote(made["url"].removeprefix("http://testserver"))
    names = case.path_parameters or {}
    if known_plan and names.get("plan"):
        path = path.replace(str(names["plan"]), PLAN, 1)
    body = made.get("data", b"")
    if "json" in made:
        body = json.dumps(made["json"]).encode()
    elif isinstance(body, str):
        body = body.encode()
    headers = {str(name): str(value) for name, value in (made.get("headers") or {}).items()}
    if token:
        headers["authorization"] = f"Bearer {TOKEN}"
    query = urlencode({str(name): str(value) for name, value in (made.get("params") or {}).items()})
    latin = {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in headers.items()}
    path = quote(path, safe="/%").encode("ascii", "replace").decode()
    return ask(world.app, made["method"], unquote(path) + (f"?{query}" if query else ""), headers=latin, body=body)


def check(world: World, name: str, case: Any, *, known_plan: bool, token: bool) -> None:
    answer = sent(world, case, known_plan=known_plan, token=token)
    assert 200 <= answer.status < 500, (name, answer)
    if answer.status >= 400:
        assert answer.headers["content-type"] == PROBLEM_TYPE
        assert json.loads(answer.body)["status"] == answer.status
    assert world.front.room.free == 1 << 20


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@pytest.mark.parametrize("name", SERVED)
def test_no_request_around_the_document_is_a_fault_of_the_server(world: World, name: str) -> None:
    run(world, name, examples=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_no_request_of_many_around_the_document_is_a_fault_of_the_server(world: World, name: str) -> None:
    run(world, name, examples=150)


def run(world: World, name: str, *, examples: int) -> None:
    @given(case=cases(OPERATIONS[name]), known_plan=st.booleans(), token=st.booleans())
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    def each(case: Any, known_plan: bool, token: bool) -> None:
        check(world, name, case, known_plan=known_plan, token=token)

    each()
