"""Who may ask: the bearer token."""

from __future__ import annotations

import pytest

from tests.unit.web.web_world import World, populated
from verifier.web.api import create_app

TOKEN = "a-long-random-token"
GUARDED = (
    "/v1/summary",
    "/v1/routes",
    "/v1/fields",
    "/v1/divergences",
    "/v1/requests/req-1",
    "/v1/conflicts",
    "/v1/rules",
    "/metrics",
    "/openapi.json",
    "/nowhere",
    "/healthz/",
)


@pytest.mark.parametrize("path", GUARDED)
async def test_everything_with_data_needs_the_token(path: str) -> None:
    async with (await populated()).client(api_token=TOKEN) as client:
        answer = await client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="shadow-verifier"'
        assert answer.headers["content-type"] == "application/problem+json"
        right = await client.get(path, headers={"authorization": f"Bearer {TOKEN}"})
        assert right.status_code in (200, 404)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xff",
    ],
)
async def test_a_wrong_token_is_told_as_invalid(given: str) -> None:
    async with (await populated()).client(api_token=TOKEN) as client:
        answer = await client.get("/v1/summary", headers={b"authorization": given.encode("latin-1")})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert TOKEN not in answer.text


async def test_the_scheme_is_read_in_any_case() -> None:
    async with (await populated()).client(api_token=TOKEN) as client:
        answer = await client.get("/v1/summary", headers={"authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200


async def test_probes_and_the_page_without_data_are_open() -> None:
    async with (await populated()).client(api_token=TOKEN) as client:
        for path in ("/healthz", "/readyz", "/", "/dashboard/main.js", "/dashboard/style.css"):
            assert (await client.get(path)).status_code == 200


async def test_without_a_token_everything_is_open_and_an_empty_one_is_an_error() -> None:
    async with (await populated()).client() as client:
        assert (await client.get("/v1/summary")).status_code == 200
    with pytest.raises(ValueError, match="VERIFIER_API_TOKEN"):
        create_app(World().deps(api_token="  "))
