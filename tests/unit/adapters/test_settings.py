"""Loading: sources and who wins, all problems at once, no secrets anywhere."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from verifier.adapters.settings import Problem, Settings, SettingsError, load_settings

BASE = {"VERIFIER_KAFKA": "kafka:9092", "VERIFIER_POSTGRES": "postgresql://verifier:hunter2@pg:5432/verifier"}
DOCUMENTATION = Path(__file__).parents[3] / "docs" / "settings.md"


def load(file: Path | None = None, **variables: str) -> Settings:
    return load_settings({**BASE, **{f"VERIFIER_{k}": v for k, v in variables.items()}}, config_path=file)


def problems_of(file: Path | None = None, **variables: str) -> dict[str, Problem]:
    with pytest.raises(SettingsError) as caught:
        load(file, **variables)
    return {problem.name: problem for problem in caught.value.problems}


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return tmp_path / "verifier.yaml"


def test_the_defaults_are_the_contracts() -> None:
    settings = load()
    assert settings.redis.get_secret_value() == "redis://redis:6379/1"
    assert (settings.http_host, settings.http_port) == ("0.0.0.0", 8080)
    assert (settings.group, settings.partitions, settings.topic_prefix) == ("shadow-verifier", 4, "")
    assert (settings.join_timeout_s, settings.lateness_s, settings.idle_s) == (30.0, 1.0, 1.0)
    assert settings.expect == ("edge", "responses")
    assert (settings.write_settle_s, settings.conflict_timeout_s, settings.idempotency_ttl_s) == (
        2.0,
        30.0,
        3600.0,
    )
    assert settings.record_bytes_max < 10_000_000
    assert settings.topics.sources == (
        "edge.requests",
        "main.responses",
        "shadow.responses",
        "main.writes",
        "shadow.writes",
    )
    assert settings.topics.outputs == (
        "verifier.journal",
        "verifier.divergences",
        "verifier.conflicts",
        "verifier.rejected",
    )
    assert settings.topics.replay_of("r1") == "verifier.replay.r1"


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("KAFKA", "a:1,b:2", "kafka", ("a:1", "b:2")),
        ("HTTP_PORT", "9000", "http_port", 9000),
        ("EXPECT", "edge, responses,writes", "expect", ("edge", "responses", "writes")),
        ("JOIN_TIMEOUT_S", "2m", "join_timeout_s", 120.0),
        ("RECORD_BYTES_MAX", "1MiB", "record_bytes_max", 1_048_576),
        ("ROUTE_TEMPLATES", "GET /a/{id}, POST /b", "route_templates", ("GET /a/{id}", "POST /b")),
        ("ROUTES", "GET /a", "route_templates", ("GET /a",)),
        ("IDEMPOTENCY_ENABLED", "false", "idempotency_enabled", False),
        ("REDACT", "x-secret-thing, iban", "redact", ("x-secret-thing", "iban")),
        ("LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("DATA_DIR", "/var/lib/v", "data_dir", Path("/var/lib/v")),
        ("PARTITIONS", " ", "partitions", 4),
        ("PHASE", "canary", "phase", "canary"),
    ],
)
def test_a_variable_is_read(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(load(None, **{variable: text}), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("KAFKA", "kafka", "host:port"),
        ("HTTP_PORT", "70000", "1 to 65535"),
        ("HTTP_PORT", "http", "whole number"),
        ("PARTITIONS", "0", "1 to 1024"),
        ("JOIN_TIMEOUT_S", "soon", "30s, 5m, 1h"),
        ("JOIN_TIMEOUT_S", "0", "greater than 0"),
        ("REDIS", "redis", "redis://"),
        ("POSTGRES", "mysql://h/db", "postgresql://"),
        ("GROUP", "a group", "letters"),
        ("RECORD_BYTES_MAX", "1GiB", "256MiB"),
        ("TOPIC_JOURNAL", "a b", "topic"),
        ("LOG_FORMAT", "xml", "json or console"),
        ("API_TOKEN", "two words", "without spaces"),
        ("IDEMPOTENCY_STRATEGY", "random", "user_id:operation_type:timestamp"),
        ("RULES", "not json", "JSON list"),
        ("PHASE", "beta", "shadow, canary, ramp or full"),
        ("ROUTES_MAX", "0", "1 to 10000"),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_expected(variable: str, text: str, said: str) -> None:
    problem = problems_of(None, **{variable: text})[f"VERIFIER_{variable}"]
    assert said in str(problem)


def test_a_wrong_item_of_a_list_is_pointed_at() -> None:
    problem = problems_of(EXPECT="edge,replies")["VERIFIER_EXPECT[1]"]
    assert problem.given == "'replies'"


def test_all_problems_come_at_once(yaml_file: Path) -> None:
    yaml_file.write_text("http_port: x\njoin_timout_s: 3\nidempotency: {storage: {type: memcached}}\n")
    found = problems_of(
        yaml_file,
        KAFKA="nowhere",
        PARTITIONS="many",
        TOPIC_JOURNAL="edge.requests",
        EXPECTS="edge",
        LATENESS_S="-1s",
    )
    assert set(found) == {
        "VERIFIER_KAFKA",
        "VERIFIER_PARTITIONS",
        "VERIFIER_TOPIC_JOURNAL",
        "VERIFIER_EXPECTS",
        "VERIFIER_LATENESS_S",
        "verifier.yaml: http_port",
        "verifier.yaml: join_timout_s",
        "verifier.yaml: idempotency.storage.type",
    }


def test_what_has_no_default_must_be_set() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({})
    assert [problem.name for problem in caught.value.problems] == ["VERIFIER_KAFKA", "VERIFIER_POSTGRES"]
    assert load_settings({}, require=()).kafka == ()


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [
        ("VERIFIER_JION_TIMEOUT_S", "VERIFIER_JOIN_TIMEOUT_S"),
        ("VERIFIER_POSTGRESQL", "VERIFIER_POSTGRES"),
        ("VERIFIER_TOPIC_EDGE", "VERIFIER_TOPIC_EDGE_REQUESTS"),
    ],
)
def test_an_unknown_variable_gets_a_suggestion_and_its_value_is_not_told(
    variable: str, suggestion: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({**BASE, variable: "hunter2"})
    assert f"did you mean {suggestion}?" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_yaml_key_gets_a_suggestion(yaml_file: Path) -> None:
    yaml_file.write_text("join_timeout: 3\ntopics: {edge_request: x}\nx-anchors: {a: 1}\n")
    found = problems_of(yaml_file)
    assert found["verifier.yaml: join_timeout"].hint == "did you mean join_timeout_s?"
    assert found["verifier.yaml: topics.edge_request"].hint == "did you mean topics.edge_requests?"
    assert len(found) == 2


def test_the_variables_kubernetes_adds_for_a_service_are_passed_over() -> None:
    load(
        SERVICE_HOST="10.0.0.1",
        SERVICE_PORT="80",
        SERVICE_PORT_HTTP="80",
        PORT="tcp://10.0.0.1:80",
        PORT_80_TCP="tcp://10.0.0.1:80",
        PORT_80_TCP_ADDR="10.0.0.1",
        API_SERVICE_HOST="10.0.0.2",
    )


def test_a_setting_that_a_kubernetes_service_overrode_is_explained() -> None:
    assert "enableServiceLinks" in problems_of(HTTP_PORT="tcp://10.0.0.1:80")["VERIFIER_HTTP_PORT"].hint


def test_the_environment_wins_over_the_file_and_the_file_over_its_blocks(yaml_file: Path) -> None:
    yaml_file.write_text(
        "idempotency: {key: {ttl: 1h}}\nidempotency_ttl_s: 2h\n"
        "shadowing: {conflict_resolution: {timeout: 10s}}\nhttp_port: 9000\n"
    )
    settings = load(yaml_file, HTTP_PORT="9001")
    assert (settings.idempotency_ttl_s, settings.conflict_timeout_s, settings.http_port) == (
        7200.0,
        10.0,
        9001,
    )
    assert load(yaml_file, IDEMPOTENCY_TTL_S="3h").idempotency_ttl_s == 10_800.0


def test_the_file_may_be_named_by_the_environment_and_hold_a_verifier_key(yaml_file: Path) -> None:
    yaml_file.write_text("verifier: {http_port: 9000, join_timeout_s: 10s}\nidle_s: 2\n")
    settings = load_settings({**BASE, "VERIFIER_CONFIG": str(yaml_file)})
    assert (settings.http_port, settings.join_timeout_s, settings.idle_s) == (9000, 10.0, 2.0)
    assert settings.config == yaml_file


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("http_port: 1\nhttp_port: 2\n", "verifier.yaml, line 2, column 1", "twice"),
        ("postgres: 'postgresql://u:hunter2@h/db\n", "verifier.yaml, line 2, column 1", "no valid YAML"),
        ("- a\n", "verifier.yaml", "mapping"),
        ("topics: [a]\n", "verifier.yaml: topics", "mapping"),
        ("verifier: 5\n", "verifier.yaml: verifier", "mapping"),
        ("http_port: 1\nverifier: {http_port: 2}\n", "verifier.yaml: http_port", "once"),
        ("routes: [GET /a]\nroute_templates: [GET /b]\n", "verifier.yaml: route_templates", "once"),
        ("data_dir: ${NOT_SET_ANYWHERE}\n", "verifier.yaml: data_dir", "NOT_SET_ANYWHERE"),
        ("http_port: true\n", "verifier.yaml: http_port", "whole number"),
        ("api_token: [hunter2]\n", "verifier.yaml: api_token", "(hidden)"),
    ],
)
def test_a_wrong_file_is_told_without_its_content(yaml_file: Path, text: str, place: str, said: str) -> None:
    yaml_file.write_text(text)
    problem = problems_of(yaml_file)[place]
    assert said in str(problem)
    assert "hunter2" not in str(problem)


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert "No such file" in str(problems_of(CONFIG=str(tmp_path / "none.yaml"))["VERIFIER_CONFIG"])


def test_texts_of_the_file_are_filled_in_from_the_environment(yaml_file: Path) -> None:
    yaml_file.write_text(
        "postgres: postgresql://u:${PG_SECRET}@h/db\ndata_dir: ${NOT_SET:-/data}\n"
        "rules: [{kind: body, field: /a, action: pattern, params: {pattern: '^${x}$'}}]\n"
    )
    environ = {"VERIFIER_KAFKA": "k:1", "PG_SECRET": "s3cret"}
    settings = load_settings(environ, config_path=yaml_file)
    assert settings.postgres.get_secret_value() == "postgresql://u:s3cret@h/db"
    assert settings.data_dir == Path("/data")
    assert settings.rules[0].params == {"pattern": "^${x}$"}


def test_a_prefix_goes_before_default_names_and_not_before_given_ones(yaml_file: Path) -> None:
    yaml_file.write_text("topics: {edge_requests: nginx.edge, main.writes: legacy.writes}\n")
    topics = load(yaml_file, TOPIC_PREFIX="blue.", TOPIC_JOURNAL="audit").topics
    assert topics.edge_requests == "nginx.edge"
    assert topics.main_writes == "legacy.writes"
    assert topics.journal == "audit"
    assert topics.shadow_writes == "blue.shadow.writes"
    assert topics.replay_of("7") == "blue.verifier.replay.7"


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"IDEMPOTENCY_TTL_S": "10", "CONFLICT_TIMEOUT_S": "30"}, "VERIFIER_IDEMPOTENCY_TTL_S"),
        ({"TOPIC_MAIN_WRITES": "edge_requests"}, "VERIFIER_TOPIC_MAIN_WRITES"),
        ({"ROUTES": "GET /a,GET /b", "ROUTES_MAX": "1"}, "VERIFIER_ROUTES_MAX"),
        (
            {"DATABASE_MAIN": "postgres://a@h/d", "DATABASE_SHADOW": "postgres://b@H:5432/d"},
            "VERIFIER_DATABASE_SHADOW",
        ),
        ({"RULES": json.dumps([{"id": "a", "kind": "status", "action": "ignore"}] * 2)}, "VERIFIER_RULES"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(variables: dict[str, str], place: str) -> None:
    assert set(problems_of(None, **variables)) == {place}


def test_a_canary_may_share_mains_database() -> None:
    load(DATABASE_MAIN="postgres://a@h/d", DATABASE_CANARY="postgres://b@h/d")


def test_doubtful_settings_are_warned_about_and_work() -> None:
    settings = load(JOIN_TIMEOUT_S="1", WRITE_SETTLE_S="2", API_TOKEN="short")
    assert any(
        "VERIFIER_JOIN_TIMEOUT_S: 1 s is below VERIFIER_WRITE_SETTLE_S" in text for text in settings.warnings
    )
    assert any("can be guessed" in text for text in settings.warnings)
    assert any("open to everyone" in text for text in load().warnings)
    assert load(API_TOKEN="long-enough-to-be-a-token").warnings == ()


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ({"kind": "body", "action": "guess"}, "[0].action"),
        ({"kind": "cookie", "action": "ignore"}, "[0].kind"),
        ({"kind": "body"}, "[0].action"),
        ({"kind": "body", "field": "price", "action": "ignore"}, "[0]"),
        ({"kind": "status", "field": "x", "action": "ignore"}, "[0]"),
        ({"kind": "body", "action": "tolerance"}, "[0]"),
        ({"kind": "body", "action": "pattern", "params": {"pattern": "("}}, "[0]"),
        ({"kind": "body", "action": "ignore", "route": "somewhere"}, "[0].route"),
        ({"kind": "body", "action": "ignore", "expires_at": "soon"}, "[0].expires_at"),
        ({"kind": "body", "action": "ignore", "until": "soon"}, "[0].until"),
        ({"kind": "body", "action": "ignore", "id": "a b"}, "[0].id"),
    ],
)
def test_a_rule_of_the_wrong_shape_is_pointed_at(rule: dict[str, object], place: str) -> None:
    assert set(problems_of(RULES=json.dumps([rule]))) == {f"VERIFIER_RULES{place}"}


def test_a_rule_without_an_id_gets_a_lasting_one_and_times_are_utc() -> None:
    rule = {"kind": "body", "field": "/at", "action": "ignore", "expires_at": "2027-01-31T12:00:00+02:00"}
    other = {"kind": "body", "field": "/at", "action": "type", "expires_at": "2027-01-31T12:00:00"}
    first, second = load(RULES=json.dumps([rule, other])).rules
    assert first.rule_id == load(RULES=json.dumps([rule])).rules[0].rule_id != second.rule_id
    assert first.expires_at == datetime(2027, 1, 31, 10, tzinfo=UTC)
    assert second.expires_at == datetime(2027, 1, 31, 12, tzinfo=UTC)


def test_secrets_show_nowhere() -> None:
    settings = load(
        REDIS="redis://:hunter2@redis/1",
        API_TOKEN="hunter2-hunter2-hunter2",
        DATABASE_MAIN="postgresql://u:hunter2@h:5433/d?sslmode=require",
    )
    for text in (repr(settings), str(settings), json.dumps(settings.describe())):
        assert "hunter2" not in text
    described = settings.describe()
    assert described["redis"] == "redis://:***@redis/1"
    assert described["postgres"] == "postgresql://verifier:***@pg:5432/verifier"
    assert described["api_token"] == "***"
    assert described["database_main"] == "postgresql://u:***@h:5433/d?sslmode=require"
    assert settings.database_main is not None
    assert settings.database_main.dsn() == SecretStr("postgresql://u:hunter2@h:5433/d?sslmode=require")


@pytest.mark.parametrize(
    "variables",
    [
        {"KAFKA": "postgres://u:hunter2@h"},
        {"POSTGRES": "hunter2"},
        {"REDIS": "redis://:hunter2@h/x"},
        {"API_TOKEN": "hunter2 hunter2"},
        {"DATABASE_SHADOW": "postgres://u:hunter2@/x"},
        {"HTTP_HOST": "postgres://u:hunter2@h with space"},
        {"LOG_LEVEL": "password=hunter2"},
    ],
)
def test_an_error_shows_no_secret(variables: dict[str, str]) -> None:
    found = problems_of(None, **variables)
    assert "hunter2" not in str(list(found.values()))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().http_port = 1


def test_the_documentation_names_every_setting_with_its_default() -> None:
    text = DOCUMENTATION.read_text()
    rows = {
        name: cells[1].strip().strip("`")
        for cells in (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `"))
        for name in re.findall(r"`(\w+)`", cells[0])
        if len(cells) == 3
    }
    fields = {
        name: field for name, field in Settings.model_fields.items() if name not in ("warnings", "extras")
    }
    assert set(rows) == set(fields)
    defaults = load_settings({}, require=())
    for name in fields:
        value = getattr(defaults, name)
        if name.startswith("topic_") and name != "topic_prefix":
            assert rows[name] == getattr(defaults.topics, name.removeprefix("topic_"))
        elif value in (None, ()) or (name == "postgres"):
            assert rows[name].startswith("none")
        elif value == "":
            assert rows[name] == "empty"
        else:
            written = load(None, **{name.upper(): rows[name]})
            assert getattr(written, name) == value, name
