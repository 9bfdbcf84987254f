"""The OpenAPI document describes every route, and what is really answered fits it."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from tests.unit.web.web_world import Failing, populated
from verifier.core.errors import DependencyDown
from verifier.web.api import create_app
from verifier.web.openapi import openapi_document
from verifier.web.ports import Readiness

DOCUMENT = openapi_document(with_token=True)
ASKED = {
    "/v1/summary": "",
    "/v1/routes": "",
    "/v1/fields": "",
    "/v1/divergences": "?limit=1",
    "/v1/requests": "?verdict=incomplete",
    "/v1/requests/{request_id}": "",
    "/v1/conflicts": "",
    "/v1/rules": "",
    "/healthz": "",
    "/readyz": "",
}


def check(schema: dict[str, Any], value: Any) -> None:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not errors


def json_answer(path: str, status: str) -> dict[str, Any]:
    found = DOCUMENT["paths"][path]["get"]["responses"][status]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    (content,) = found["content"].values()
    result: dict[str, Any] = content
    return result


async def test_every_route_is_described_and_nothing_else() -> None:
    app = create_app((await populated()).deps())
    assert {route.path for route in app.routes if isinstance(route, Route)} == set(DOCUMENT["paths"])


def test_schemas_are_schemas_and_references_lead_somewhere() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                _, *names = value["$ref"].split("/")
                target = DOCUMENT
                for name in names:
                    target = target[name]
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(DOCUMENT)


def test_operations_have_unique_names() -> None:
    names = [item["get"]["operationId"] for item in DOCUMENT["paths"].values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", ASKED)
def test_examples_fit_their_schemas(path: str) -> None:
    content = json_answer(path, "200")
    check(content["schema"], content["example"])


@pytest.mark.parametrize("path", ASKED)
async def test_real_answers_fit_their_schemas(path: str) -> None:
    async with (await populated()).client() as client:
        real = path.replace("{request_id}", "req-1") + ASKED[path]
        answer = await client.get(real)
        assert answer.status_code == 200
        check(json_answer(path, "200")["schema"], answer.json())


async def test_real_problems_fit_their_schema() -> None:
    world = await populated()
    async with world.client() as client:
        check(
            json_answer("/v1/divergences", "400")["schema"],
            (await client.get("/v1/divergences?limit=0")).json(),
        )
        unknown = await client.get("/v1/requests/nobody")
        check(json_answer("/v1/requests/{request_id}", "404")["schema"], unknown.json())
        world.readiness = Readiness(ok=False, reasons=("recovering",))
        check(json_answer("/readyz", "503")["schema"], (await client.get("/readyz")).json())
    async with world.client(store=Failing(DependencyDown("postgres", "away"))) as client:
        check(json_answer("/v1/summary", "503")["schema"], (await client.get("/v1/summary")).json())


async def test_the_document_is_served_and_says_whether_a_token_is_needed() -> None:
    async with (await populated()).client() as client:
        served = (await client.get("/openapi.json")).json()
    assert served["openapi"].startswith("3.1")
    assert "security" not in served
    assert DOCUMENT["security"] == [{"token": []}]


async def test_described_parameters_are_those_that_are_read() -> None:
    async with (await populated()).client() as client:
        for path in ("/v1/routes", "/v1/fields", "/v1/divergences", "/v1/requests", "/v1/conflicts"):
            problem = (await client.get(path, params={"nonsense": "1"})).json()
            listed = problem["errors"][0]["expected"].removeprefix("one of the parameters ").split(", ")
            described = {item["name"] for item in DOCUMENT["paths"][path]["get"]["parameters"]}
            assert set(listed) == described
