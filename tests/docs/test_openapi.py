"""docs/openapi.json is what the code says, and the code serves what it says: no route more, no route less."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from hushrec.messages import PHASES, ROUTES
from hushrec_server.authority_app import certificate_route
from hushrec_server.device_routes import DEVICE_ROUTES
from hushrec_server.openapi import openapi_document
from hushrec_server.operator_routes import OPERATOR_ROUTES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
DOCUMENT = openapi_document()
METHODS = {"get", "post"}


def test_the_file_is_what_the_code_says() -> None:
    made = msgspec.json.format(msgspec.json.encode(DOCUMENT, order="sorted"), indent=2) + b"\n"
    assert PAGE.read_bytes() == made, "the API changed: python -m hushrec_server.openapi docs/openapi.json"


def test_every_route_of_the_table_is_served_under_its_name_and_no_other_is() -> None:
    handlers = [*DEVICE_ROUTES, *OPERATOR_ROUTES, certificate_route(None)]  # type: ignore[arg-type]
    served = {
        handler.name: (next(iter(handler.http_methods)), re.sub(r":str\}", "}", next(iter(handler.paths))))
        for handler in handlers
    }
    told = {name: (route.method, route.path) for name, route in ROUTES.items() if name != "releases"}
    assert served == told


def test_every_route_of_the_table_is_in_the_document() -> None:
    told = {
        operation["operationId"]: (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
    }
    assert told == {name: (route.method, route.path) for name, route in ROUTES.items()}


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_every_operation_names_its_parameters_and_its_refusals(path: str) -> None:
    for method, operation in DOCUMENT["paths"][path].items():
        assert method in METHODS
        named = [parameter["name"] for parameter in operation.get("parameters", [])]
        assert named == re.findall(r"\{(\w+)\}", path)
        assert "application/problem+json" in operation["responses"]["4XX"]["content"]
        assert operation["summary"].endswith(".")


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        found = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    assert set(PHASES) == set(re.findall(r'"enum": \[([^\]]+)\]', text)[0].replace('"', "").split(", "))


def test_devices_administrators_and_anyone_are_told_apart() -> None:
    security = {
        operation["operationId"]: sorted(name for each in operation.get("security", []) for name in each)
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
    }
    for name, needed in security.items():
        if name.startswith("admin-"):
            assert needed == ["administrator"]
        elif name in ("check-in", "upload", "reply", "feature"):
            assert needed == ["device", "signature"]
        elif name == "ready":  # more is told to an administrator; {}: anybody may ask
            assert DOCUMENT["paths"]["/readyz"]["get"]["security"] == [{}, {"administrator": []}]
        else:
            assert needed == []
