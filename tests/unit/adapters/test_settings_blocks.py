"""The migration's blocks: what is taken from them, kept, warned about and refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from verifier.adapters.settings import Settings, SettingsError, load_settings

BASE = {
    "VERIFIER_KAFKA": "kafka:9092",
    "VERIFIER_POSTGRES": "postgresql://v@pg/verifier",
    "MARKET_DB_PASSWORD": "s3cret",
}
DOCUMENTATION = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return tmp_path / "migration.yaml"


def load(file: Path, text: str, **environ: str) -> Settings:
    file.write_text(text)
    return load_settings({**BASE, **environ}, config_path=file)


def problems_of(file: Path, text: str, **environ: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(file, text, **environ)
    return {problem.name: str(problem) for problem in caught.value.problems}


def documented(title: str) -> str:
    """The example of docs/settings.md whose first comment names this file."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(f"# {title}")]
    return str(block)


def test_the_documented_blocks_of_the_migration_are_taken_over(yaml_file: Path) -> None:
    settings = load(yaml_file, documented("migration.yaml"))
    assert settings.idempotency_enabled is True
    assert settings.idempotency_strategy == "user_id:operation_type:timestamp"
    assert settings.idempotency_ttl_s == 3600.0
    assert settings.idempotency_prefix == "idempotency:"
    assert settings.redis.get_secret_value() == "redis://redis:6379/1"
    operations = (
        "POST /api/v1/market-data/fetch",
        "POST /api/v1/news/fetch",
        "POST /api/v1/data-sources/connect",
        "PUT /api/v1/market-data/buffer",
        "PUT /api/v1/news/buffer",
        "DELETE /api/v1/data-sources/{id}",
    )
    assert settings.idempotency_operations == settings.route_templates == operations
    assert settings.phase == "shadow"
    assert (settings.write_behind_delay_s, settings.write_settle_s) == (5.0, 7.0)
    assert (settings.conflict_timeout_s, settings.log_conflicts) == (30.0, True)
    dsns = [
        target.dsn().get_secret_value()
        for target in (settings.database_main, settings.database_shadow, settings.database_canary)
        if target is not None
    ]
    assert dsns == [
        "postgresql://market:s3cret@postgres:5432/market_intel",
        "postgresql://market:s3cret@postgres-shadow:5432/market_intel_shadow",
        "postgresql://market:s3cret@postgres-canary:5432/market_intel_canary",
    ]
    assert dict(settings.extras) == {
        "database.canary.max_connections": 20,
        "shadowing.consistency_check_interval": "5m",
    }
    warned = " ".join(settings.warnings)
    assert all(text in warned for text in ("max_connections", "consistency_check_interval", "waits 7 s"))


def test_the_documented_own_file_is_read(yaml_file: Path) -> None:
    yaml_file.write_text(documented("verifier.yaml"))
    settings = load_settings({}, config_path=yaml_file)
    assert settings.kafka == ("kafka-0.kafka:9092", "kafka-1.kafka:9092")
    assert settings.topics.edge_requests == "nginx.edge"
    assert [rule.action for rule in settings.rules] == ["ignore", "time_tolerance"]


@pytest.mark.parametrize(
    ("block", "field", "value"),
    [
        ("idempotency: {enabled: false}", "idempotency_enabled", False),
        ("idempotency: {key: {ttl: 3600}}", "idempotency_ttl_s", 3600.0),
        ("idempotency: {key: {ttl: 1h}}", "idempotency_ttl_s", 3600.0),
        ("idempotency: {key: {ttl: 90m}}", "idempotency_ttl_s", 5400.0),
        ("idempotency: {ttl: 2h}", "idempotency_ttl_s", 7200.0),
        ("idempotency: {key: {strategy: header}}", "idempotency_strategy", "header"),
        ("idempotency: {storage: {prefix: 'idem:'}}", "idempotency_prefix", "idem:"),
        ("idempotency: {operations: [POST /a]}", "idempotency_operations", ("POST /a",)),
        ("idempotency:", "idempotency_enabled", True),
        ("shadowing: {mode: canary}", "phase", "canary"),
        ("shadowing: {safe_write: {write_behind: 5s}}", "write_behind_delay_s", 5.0),
        ("shadowing: {safe_write: {write_behind: true}}", "write_behind_delay_s", 0.0),
        ("shadowing: {safe_write: {write_behind_delay: 3}}", "write_settle_s", 5.0),
        ("shadowing: {safe_write: {write_behind: {enabled: false, delay: 5s}}}", "write_settle_s", 2.0),
        ("shadowing: {conflict_resolution: {timeout: 10}}", "conflict_timeout_s", 10.0),
        (
            "shadowing: {conflict_resolution: {strategy: first_write, log_conflicts: no}}",
            "log_conflicts",
            False,
        ),
    ],
)
def test_one_key_of_a_block_sets_one_setting(yaml_file: Path, block: str, field: str, value: object) -> None:
    assert getattr(load(yaml_file, block), field) == value


@pytest.mark.parametrize(
    ("storage", "url"),
    [
        ("{url: redis://r:6379/1}", "redis://r:6379/1"),
        ("{address: r:6379, database: 2}", "redis://r:6379/2"),
        ("{address: 'redis://r:6379', db: 2}", "redis://r:6379/2"),
        ("{url: redis://r/1, database: 1}", "redis://r/1"),
        ("{address: r, password: p@ss}", "redis://:p%40ss@r"),
        ("{address: r, password_env: MARKET_DB_PASSWORD}", "redis://:s3cret@r"),
        ("{type: redis}", "redis://redis:6379/1"),
    ],
)
def test_the_storage_becomes_a_redis_url(yaml_file: Path, storage: str, url: str) -> None:
    assert load(yaml_file, f"idempotency: {{storage: {storage}}}").redis.get_secret_value() == url


@pytest.mark.parametrize(
    ("entry", "dsn"),
    [
        ("{host: h, name: n}", "postgresql://h:5432/n"),
        ("{host: h, port: '5433', database: n, username: u, password: 1234}", "postgresql://u:1234@h:5433/n"),
        ("{dsn: 'postgres://u:p%40@h/n'}", "postgresql://u:p%40@h:5432/n"),
        ("postgres://u@h:1/n", "postgresql://u@h:1/n"),
        ("{host: h, name: n, user: u, password: '${MARKET_DB_PASSWORD}'}", "postgresql://u:s3cret@h:5432/n"),
        ("{host: h, name: n, sslmode: require}", "postgresql://h:5432/n?sslmode=require"),
    ],
)
def test_a_database_is_fields_or_a_dsn(yaml_file: Path, entry: str, dsn: str) -> None:
    target = load(yaml_file, f"database: {{main: {entry}}}").database_main
    assert target is not None
    assert target.dsn().get_secret_value() == dsn


def test_databases_may_stand_under_safe_write(yaml_file: Path) -> None:
    text = "shadowing: {safe_write: {databases: {main: {host: a, name: m}, shadow: shadow_only_named}}}"
    settings = load(yaml_file, text)
    assert settings.database_main is not None
    assert settings.database_main.host == "a"
    assert settings.database_shadow is None
    assert any("a name without a host" in text for text in settings.warnings)
    assert dict(settings.extras) == {"shadowing.safe_write.databases.shadow": "shadow_only_named"}


@pytest.mark.parametrize(
    ("block", "place", "said"),
    [
        ("idempotency: {key: {strategy: random}}", "idempotency.key.strategy", "supports no other"),
        ("idempotency: {key: {ttl: soon}}", "idempotency.key.ttl", "30s"),
        ("idempotency: {key: 5}", "idempotency.key", "mapping"),
        ("idempotency: {operations: [fetch]}", "idempotency.operations", "POST /api/v1"),
        ("idempotency: {storage: {type: memory}}", "idempotency.storage.type", "Redis alone"),
        (
            "idempotency: {storage: {url: redis://r/1, database: 2}}",
            "idempotency.storage.database",
            "the same",
        ),
        ("idempotency: {storage: {database: 2}}", "idempotency.storage.url", "redis://"),
        ("idempotency: [a]", "idempotency", "mapping"),
        (
            "shadowing: {conflict_resolution: {strategy: last_write}}",
            "shadowing.conflict_resolution.strategy",
            "first",
        ),
        ("shadowing: {conflict_resolution: {timeout: x}}", "shadowing.conflict_resolution.timeout", "30s"),
        ("shadowing: {enabled: perhaps}", "shadowing.enabled", "true or false"),
        (
            "shadowing: {safe_write: {write_behind: {delay: x}}}",
            "shadowing.safe_write.write_behind.delay",
            "5s",
        ),
        ("shadowing: {safe_write: {write_through: 5s}}", "shadowing.safe_write.write_through", "mapping"),
        ("database: {main: {host: h}}", "database.main.name", "Field required"),
        ("database: {main: {host: h, name: n, port: 70000}}", "database.main.port", "70000"),
        (
            "database: {main: {host: h, name: n, password_env: NOWHERE}}",
            "database.main.password_env",
            "NOWHERE",
        ),
        ("database: {main: {host: h, dsn: 'postgres://h/n'}}", "database.main.dsn", "not both"),
        ("database: {main: 5}", "database.main", "mapping"),
    ],
)
def test_what_cannot_be_followed_is_refused(yaml_file: Path, block: str, place: str, said: str) -> None:
    found = problems_of(yaml_file, block)
    assert set(found) == {f"migration.yaml: {place}"}
    assert said in found[f"migration.yaml: {place}"]


def test_a_name_that_contradicts_the_database_block_is_refused(yaml_file: Path) -> None:
    text = "database: {shadow: {host: h, name: a}}\nshadowing: {safe_write: {shadow_database: b}}\n"
    assert set(problems_of(yaml_file, text)) == {"migration.yaml: shadowing.safe_write.shadow_database"}


@pytest.mark.parametrize("password", ["hunter2", "hunter2@", "hunter2/x"])
def test_no_password_of_a_block_reaches_an_error(yaml_file: Path, password: str) -> None:
    text = (
        f"database: {{main: {{host: 'h h', name: n, password: '{password}'}}, shadow: 'mysql://u:{password}@h/n'}}\n"
        f"idempotency: {{storage: {{url: 'http://u:{password}@r', passphrase: '{password}'}}}}\n"
    )
    found = problems_of(yaml_file, text)
    assert len(found) == 3
    assert "hunter2" not in str(found)


def test_an_unknown_mode_is_kept_and_warned_about(yaml_file: Path) -> None:
    settings = load(yaml_file, "shadowing: {mode: dark_launch, enabled: false}")
    assert settings.phase == "shadow"
    assert dict(settings.extras) == {"shadowing.mode": "dark_launch"}
    warned = " ".join(settings.warnings)
    assert "is no phase" in warned
    assert "mirroring is off" in warned


def test_an_explicit_settle_below_the_write_behind_delay_is_warned_about(yaml_file: Path) -> None:
    text = "shadowing: {safe_write: {write_behind: 5s}}"
    settings = load(yaml_file, text, VERIFIER_WRITE_SETTLE_S="2")
    assert settings.write_settle_s == 2.0
    assert any("VERIFIER_WRITE_SETTLE_S: 2 s is below" in text for text in settings.warnings)


def test_extras_show_only_their_names(yaml_file: Path) -> None:
    settings = load(yaml_file, "idempotency: {storage: {vault_path: hunter2}}")
    assert settings.describe()["extras"] == ["idempotency.storage.vault_path"]
    assert "hunter2" not in repr(settings)
