"""Routes: out of templates, the record, or the path; and never more than the bound."""

from __future__ import annotations

import pytest

from verifier.core.routes import Router, is_id

UUID = "0b8f3f0e-54f3-4b0e-9c39-5f3d9a1f2b77"


@pytest.mark.parametrize(
    ("method", "path", "given", "route"),
    [
        ("POST", "/api/v1/data-sources/ds-17?x=1", None, "POST /api/v1/data-sources/{id}"),
        ("post", "/api/v1/data-sources/connect", None, "POST /api/v1/data-sources/connect"),
        ("GET", "/api/v1/data-sources/ds-17/", "GET /other", "GET /api/v1/data-sources/{name}"),
        ("GET", "/files/a/b", None, "GET /files/a/b"),
        ("GET", "/users/5", "/users/:user_id", "GET /users/{user_id}"),
        ("GET", "/users/5", "GET /users/<int:user_id>", "GET /users/{user_id}"),
        ("GET", "/users/5", "no route", "GET /users/{id}"),
        ("GET", "/users/5", "/" + "x" * 300, "GET /users/{id}"),
        ("GET", f"/users/{UUID}/orders/42", None, "GET /users/{id}/orders/{id}"),
        ("GET", "http://host:80/users/5?q#f", None, "GET /users/{id}"),
        ("GET", "/", None, "GET /"),
        ("GET", "", None, "GET /"),
        ("GET", "//a//b", None, "GET /a/b"),
        ("GET", "/" + "/".join("abcdefghijklmnop"), None, "GET /a/b/c/d/e/f/g/h/i/j/k/l/{rest}"),
        ("BREW", "/pot", None, "OTHER /pot"),
    ],
)
def test_the_route_of_a_request(method: str, path: str, given: str | None, route: str) -> None:
    templates = [
        "POST /api/v1/data-sources/{id}",
        "POST /api/v1/data-sources/connect",
        "/api/v1/data-sources/{name}",
    ]
    assert Router(templates, routes_max=10).route(method, path, given) == route


@pytest.mark.parametrize(
    "segment",
    ["1", "-7", "2024", UUID, UUID.upper(), UUID.replace("-", ""), "deadbeef1", "01ARZ3NDEKTSV4RRFFQ69G5FAV",
     "0ujsswThIGTUYm2K8FjOOfXtY1K", "cus_9s6XKzkNRiz8i3", "V1StGXR8_Z5jdHi6B-myT", "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
     "me@example.org", "me%40example.org", "2026-11-22", "2026-11-22T10%3A00%3A00Z", "1,2,3", "hello%20world", "x" * 65,
     "%F0%9F%98%80"],
)  # fmt: skip
def test_segments_that_name_one_thing(segment: str) -> None:
    assert is_id(segment)


@pytest.mark.parametrize(
    "segment",
    ["market-data", "v1", "v1.2", "data-sources", "deadbeef", "facade", "getMarketDataSnapshot",
     "internal-data-sources",
     "data-sources-v2-internal", "news", "items:batchGet", "oauth2", "robots.txt", "annual-report-2024", "@me", "~"],
)  # fmt: skip
def test_words_that_stay(segment: str) -> None:
    assert not is_id(segment)


def test_beyond_the_bound_routes_fall_together_and_are_counted() -> None:
    router = Router(["GET /known/{id}"], routes_max=2)
    names = [router.route("GET", f"/{word}") for word in ("a", "b", "c", "d", "c", "a")]
    assert names == ["GET /a", "GET /b", "GET (other)", "GET (other)", "GET (other)", "GET /a"]
    assert router.overflowed == 3
    assert router.route("POST", "/x", "/given") == "POST (other)"
    assert router.route("GET", "/known/1") == "GET /known/{id}"
