"""The shipped NGINX files on a real NGINX: whom the canary serves; reload, stop, crash, rotation."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_driver import Backend, Edge, all_lines, ask, edges_over, lines, lines_of, running_backends
from verifier.demo.stack.errors import StackError
from verifier.demo.stack.nginx import EdgeParams, render, shipped_file
from verifier.demo.stack.process import wait_until


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    with running_backends() as three:
        yield three


@pytest.fixture
def edge(backends: dict[str, Backend], tmp_path: Path) -> Iterator[Edge]:
    with edges_over(backends, tmp_path) as start:
        yield start


# --- the canary ---------------------------------------------------------------------------------------------


def test_what_the_canary_serves_is_not_mirrored(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(canary_weight_percent=100)
    answer = ask(nginx, "/c%2F?x", method="POST", body=b"data", headers={"X-Shadow-Request": "true"})
    assert answer.body == b"canary"
    line = lines_of(nginx, answer.request_id, 1)["canary"]
    assert (line["status"], line["uri"], line["upstream_addr"]) == (
        200,
        "/c%2F?x",
        backends["canary"].address,
    )
    heard = backends["canary"].seen[0]
    assert (heard.body, heard.target) == (b"data", "/c%2F?x")
    assert (heard.headers["x-canary-backend"], heard.headers["x-canary-weight"]) == ("true", "100")
    assert heard.headers["x-request-id"] == answer.request_id
    assert "x-shadow-request" not in heard.headers
    assert not backends["main"].seen and not backends["shadow"].seen


def test_what_is_too_much_for_the_canary_is_served_by_main(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(canary_weight_percent=100, canary_rate_per_s=1, canary_burst=4)
    answers = [ask(nginx, method="POST", body=b"b") for _ in range(20)]
    served = Counter(answer.body for answer in answers)
    assert {answer.status for answer in answers} == {200}
    assert 5 <= served[b"canary"] <= 7
    for answer in answers:
        found = lines_of(nginx, answer.request_id, 1 if answer.body == b"canary" else 2)
        assert found.keys() == ({"canary"} if answer.body == b"canary" else {"main", "shadow"})
    assert {seen.body for seen in backends["main"].seen} == {b"b"}


def test_the_weight_sticks_to_a_user_and_else_to_a_session(edge: Edge) -> None:
    nginx = edge(canary_weight_percent=30, canary_rate_per_s=1000, canary_burst=1000, shadow_rate_per_s=1000)
    first = [ask(nginx, headers={"X-User-ID": f"u{n}"}) for n in range(100)]
    again = [ask(nginx, headers={"X-User-ID": f"u{n}"}) for n in range(100)]
    assert [answer.body for answer in first] == [answer.body for answer in again]
    assert 15 <= sum(answer.body == b"canary" for answer in first) <= 45
    assert not any(answer.headers["Set-Cookie"] for answer in first)
    sides = set()
    for _ in range(30):
        visit = ask(nginx)
        cookie = visit.headers["Set-Cookie"].partition(";")[0]
        assert cookie.startswith("market-intel-canary=")
        back = ask(nginx, headers={"Cookie": f"a=b; {cookie}; c=d"})
        assert (back.body, back.headers["Set-Cookie"]) == (visit.body, None)
        sides.add(back.body)
    assert sides == {b"main", b"canary"}


@pytest.mark.parametrize(
    ("opt_in", "weight", "headers", "served"),
    [
        (True, 0, {"X-Canary": "true"}, b"canary"),
        (True, 0, {"Cookie": "market-intel-canary=always"}, b"canary"),
        (True, 0, {"X-Canary": "false", "Cookie": "market-intel-canary=always"}, b"main"),
        (True, 0, {"X-Canary": "perhaps"}, b"main"),
        (True, 0, {"Cookie": "not-market-intel-canary=always"}, b"main"),
        (True, 100, {"Cookie": "market-intel-canary=never"}, b"main"),
        (True, 100, {"X-Canary": "true", "Cookie": "market-intel-canary=never"}, b"canary"),
        (False, 100, {"X-Canary": "never"}, b"main"),
        (False, 0, {"X-Canary": "true", "Cookie": "market-intel-canary=always"}, b"main"),
    ],
)
def test_header_before_cookie_before_weight(
    edge: Edge, opt_in: bool, weight: float, headers: dict[str, str | bytes], served: bytes
) -> None:
    answer = ask(edge(canary_opt_in=opt_in, canary_weight_percent=weight), headers=headers)
    assert answer.body == served
    assert weight or answer.headers["Set-Cookie"] is None


# --- running it ---------------------------------------------------------------------------------------------


def test_a_reload_takes_up_parameters_and_drops_no_request(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(shadow_rate_per_s=10_000, shadow_burst=1000)
    reloaded = EdgeParams(
        main=backends["main"].address,
        shadow=backends["shadow"].address,
        listen=nginx.params.listen,
        sample_percent=0,
    )
    with ThreadPoolExecutor(2) as pool:
        load = [pool.submit(ask, nginx, f"/{n}", method="POST", body=b"x") for n in range(300)]
        nginx.reload(reloaded)
        answers = [future.result() for future in load]
    assert {answer.status for answer in answers} == {200}
    after = ask(nginx)
    assert lines_of(nginx, after.request_id, 1)["main"]["sampled"] is False
    mirrored = sum(line["side"] == "main" and line["sampled"] for line in lines(nginx))
    assert len(all_lines(nginx, 301 + mirrored)) == 301 + mirrored


def test_a_configuration_that_nginx_refuses_changes_nothing(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    wrong = EdgeParams(
        main="no-such-host.invalid:1", shadow=backends["shadow"].address, listen=nginx.params.listen
    )
    with pytest.raises(StackError, match="refuses the configuration"):
        nginx.reload(wrong)
    nginx.reload()
    assert ask(nginx).body == b"main"


def test_stopping_finishes_what_is_under_way_and_writes_its_lines(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge()
    backends["main"].delay_s, backends["shadow"].delay_s = 0.3, 0.8
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, nginx)
        wait_until(lambda: backends["shadow"].seen, 5.0, "the shadow to be asked")
        nginx.stop()
        answer = asked.result()
    both = lines_of(nginx, answer.request_id, 2)
    assert (answer.status, both["shadow"]["status"]) == (200, 200)


def test_it_starts_again_after_it_was_killed(edge: Edge) -> None:
    nginx = edge()
    assert nginx.pid
    os.killpg(nginx.pid, signal.SIGKILL)
    wait_until(lambda: not nginx.running, 5.0, "nginx to die")
    nginx.stop()
    assert (nginx.run_dir / "hop.sock").exists()
    nginx.start()
    assert ask(nginx).status == 200


def test_a_rotated_log_goes_on_in_a_new_file(edge: Edge) -> None:
    nginx = edge()
    lines_of(nginx, ask(nginx).request_id, 2)
    nginx.log_path.rename(nginx.log_path.with_suffix(".1"))
    nginx.reopen_log()
    wait_until(nginx.log_path.exists, 5.0, "the new log file")
    lines_of(nginx, ask(nginx).request_id, 2)


def test_rendering_names_every_fault_at_once() -> None:
    assert render("a $b ${B} ${b}", {"B": "c"}) == "a $b c ${b}"
    with pytest.raises(
        StackError, match="ONE has no value; TWO is not in the template; TWO holds a line break"
    ):
        render("${ONE}", {"TWO": "x\ny"})


def test_wrong_parameters_are_named_all_at_once() -> None:
    with pytest.raises(
        StackError, match=r"main must be host:port.*sample_percent.*shadow_burst must be more"
    ):
        EdgeParams(main="m:1; return 200", shadow="s:1", sample_percent=101, shadow_burst=0)


def test_a_hung_shadow_must_leave_users_connections() -> None:
    with pytest.raises(StackError, match="worker_connections must be at least 5000"):
        EdgeParams(main="m:1", shadow="s:1", shadow_in_flight_max=1000, worker_connections=4096)


@pytest.mark.parametrize("name", ["nginx.conf.template", "rsyslog.conf.template"])
def test_the_readme_names_every_parameter(name: str) -> None:
    parameters = set(re.findall(r"\$\{([A-Z_]+)\}", shipped_file(name).read_text()))
    assert parameters
    described = set(re.findall(r"`([A-Z_]+)`", shipped_file("README.md").read_text()))
    assert parameters <= described
