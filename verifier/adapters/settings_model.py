"""What can be set, with meanings, units, defaults and bounds. `docs/settings.md` is checked against this table."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote, unquote, urlencode

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from verifier.adapters import settings_values as read
from verifier.adapters.redaction import HIDDEN, Redactor

EventKind: TypeAlias = Literal["edge", "responses", "writes"]
Phase: TypeAlias = Literal["shadow", "canary", "ramp", "full"]
Action: TypeAlias = Literal[
    "ignore", "presence", "type", "tolerance", "time_tolerance", "pattern", "unordered", "generated_id", "exact"
]  # fmt: skip

Seconds = Annotated[float, BeforeValidator(read.read_duration)]
Bytes = Annotated[int, BeforeValidator(read.read_size)]
Count = Annotated[int, BeforeValidator(read.read_count)]
Flag = Annotated[bool, BeforeValidator(read.read_flag)]
Names = Annotated[tuple[str, ...], BeforeValidator(read.read_names)]
Routes = Annotated[tuple[str, ...], BeforeValidator(read.read_routes)]
Brokers = Annotated[tuple[str, ...], BeforeValidator(read.read_brokers)]
TopicName = Annotated[str, BeforeValidator(read.read_topic)]

_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RuleSpec(BaseModel):
    """One configured rule: what to ignore, tolerate or require, where, by whose word and until when.

    Without a `route` it holds everywhere, without a `field` for the whole kind. `expires_at` is UTC if it names no
    zone. A rule without `id` gets one from its content, the same at every start.
    """

    model_config = _STRICT

    id: str = Field(default="", max_length=128, pattern=r"^[A-Za-z0-9._:-]*$")
    route: Annotated[str, BeforeValidator(read.read_route)] | None = None
    kind: Literal["status", "header", "body", "write", "*"]
    field: str | None = Field(default=None, max_length=512)
    action: Action
    params: dict[str, str | bool | int | float | list[str]] = Field(default_factory=dict)
    owner: str | None = None
    reason: str | None = None
    expires_at: datetime | None = None

    @field_validator("expires_at", mode="after")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _fits_together(self) -> RuleSpec:
        if self.kind in ("body", "write") and self.field not in (None, "") and not self.field.startswith("/"):
            raise ValueError(f"the field of a {self.kind} rule is a JSON Pointer and starts with '/'")
        if self.kind == "status" and self.field:
            raise ValueError("a status rule has no field")
        if self.action in ("tolerance", "time_tolerance", "pattern") and not self.params:
            raise ValueError(f"the action {self.action} needs params")
        pattern = self.params.get("pattern")
        if self.action == "pattern" and isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"params.pattern is no regular expression: {error}") from None
        return self

    @property
    def rule_id(self) -> str:
        """The given id, or one made of the rule's content."""
        if self.id:
            return self.id
        content = json.dumps([self.route, self.kind, self.field, self.action, self.params], sort_keys=True)
        return f"configured-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


class DatabaseTarget(BaseModel):
    """A database of one side, for reconciling tables."""

    model_config = _STRICT

    host: str = Field(min_length=1, max_length=255, pattern=r"^[^\s@]+$")
    port: Annotated[Count, Field(ge=1, le=65_535)] = 5432
    name: str = Field(min_length=1, max_length=63)
    user: str | None = None
    password: SecretStr | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_dsn(cls, value: object) -> object:
        """A DSN, as the environment gives it, is taken apart."""
        if not isinstance(value, str):
            return value
        parts = read.split_url(read.read_postgres_dsn(value), ("postgresql", "postgres"))
        options = re.search(r"(?:^|&)sslmode=([^&]+)", parts.query)
        fields: dict[str, object] = {
            "host": parts.hostname or "",
            "port": parts.port or 5432,
            "name": unquote(parts.path.lstrip("/")),
            "user": unquote(parts.username) if parts.username else None,
            "password": SecretStr(unquote(parts.password)) if parts.password else None,
            "sslmode": options.group(1) if options else None,
        }
        return fields

    def dsn(self) -> SecretStr:
        """What asyncpg connects with. A secret: it has the password."""
        return SecretStr(
            self._dsn(quote(self.password.get_secret_value(), safe="") if self.password else None)
        )

    def describe(self) -> str:
        """The DSN with the password hidden."""
        return self._dsn(HIDDEN if self.password else None)

    def _dsn(self, password: str | None) -> str:
        user = quote(self.user, safe="") if self.user else ""
        login = f"{user}:{password}@" if password is not None else f"{user}@" if user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = f"?{urlencode({'sslmode': self.sslmode})}" if self.sslmode else ""
        return f"postgresql://{login}{host}:{self.port}/{quote(self.name, safe='')}{query}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The topics' full names."""

    edge_requests: str
    main_responses: str
    shadow_responses: str
    main_writes: str
    shadow_writes: str
    journal: str
    divergences: str
    conflicts: str
    rejected: str
    replay: str

    @property
    def sources(self) -> tuple[str, str, str, str, str]:
        """The five topics read, which share one partition count."""
        return (
            self.edge_requests,
            self.main_responses,
            self.shadow_responses,
            self.main_writes,
            self.shadow_writes,
        )

    @property
    def outputs(self) -> tuple[str, str, str, str]:
        """The topics written while live."""
        return (self.journal, self.divergences, self.conflicts, self.rejected)

    def replay_of(self, replay_id: str) -> str:
        """The topic of one audit replay."""
        return f"{self.replay}.{replay_id}"


TOPIC_DEFAULTS = {
    "edge_requests": "edge.requests",
    "main_responses": "main.responses",
    "shadow_responses": "shadow.responses",
    "main_writes": "main.writes",
    "shadow_writes": "shadow.writes",
    "journal": "verifier.journal",
    "divergences": "verifier.divergences",
    "conflicts": "verifier.conflicts",
    "rejected": "verifier.rejected",
    "replay": "verifier.replay",
}


def setting(default: Any, meaning: str, expected: str, **bounds: Any) -> Any:
    """A field with what it means and what is expected, for the documentation and for error messages."""
    return Field(default=default, description=meaning, json_schema_extra={"expected": expected}, **bounds)


_DURATION = "a duration such as 30s, 5m, 1h, or a number of seconds"


class Settings(BaseModel):
    """Everything that can be set, frozen. Made by `verifier.adapters.settings.load_settings`."""

    model_config = _STRICT

    kafka: Brokers = setting((), "Kafka's bootstrap brokers", "host:port, several separated by commas")
    redis: SecretStr = setting(
        SecretStr("redis://redis:6379/1"),
        "Redis, where the live claims are",
        "redis://[user:password@]host:port/database, or rediss://, or unix://",
    )
    postgres: SecretStr = setting(
        SecretStr(""), "the verifier's own PostgreSQL", "postgresql://user:password@host:port/database"
    )
    http_host: str = setting(
        "0.0.0.0",  # noqa: S104 - a container's; the token guards the data
        "address the API listens on",
        "an address or host name",
        pattern=r"^\S+$",
    )
    http_port: Count = setting(8080, "port the API listens on", "a port from 1 to 65535", ge=1, le=65_535)
    api_token: SecretStr | None = setting(
        None, "bearer token the API asks for; without it the API is open", "text without spaces"
    )
    group: str = setting(
        "shadow-verifier", "Kafka consumer group", "1 to 255 letters, digits, '.', '_', '-'",
        pattern=r"^[A-Za-z0-9._-]{1,255}$",
    )  # fmt: skip
    instance_id: str | None = setting(
        None, "this worker's lasting name in the group: back in time, it keeps its partitions without a rebalance",
        "1 to 100 letters, digits, '.', '_', '-'", pattern=r"^[A-Za-z0-9._-]{1,100}$",
    )  # fmt: skip
    session_timeout_s: Seconds = setting(10.0, "a lost worker is replaced after", _DURATION, ge=6, le=300)
    partitions: Count = setting(4, "partitions of each topic", "a number from 1 to 1024", ge=1, le=1024)
    topic_prefix: str = setting(
        "", "put before each default topic name", "up to 100 letters, digits, '.', '_', '-'",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
    )  # fmt: skip
    topic_edge_requests: TopicName | None = setting(None, "full name of edge.requests", "a Kafka topic name")
    topic_main_responses: TopicName | None = setting(
        None, "full name of main.responses", "a Kafka topic name"
    )
    topic_shadow_responses: TopicName | None = setting(
        None, "full name of shadow.responses", "a Kafka topic name"
    )
    topic_main_writes: TopicName | None = setting(None, "full name of main.writes", "a Kafka topic name")
    topic_shadow_writes: TopicName | None = setting(None, "full name of shadow.writes", "a Kafka topic name")
    topic_journal: TopicName | None = setting(None, "full name of verifier.journal", "a Kafka topic name")
    topic_divergences: TopicName | None = setting(
        None, "full name of verifier.divergences", "a Kafka topic name"
    )
    topic_conflicts: TopicName | None = setting(None, "full name of verifier.conflicts", "a Kafka topic name")
    topic_rejected: TopicName | None = setting(None, "full name of verifier.rejected", "a Kafka topic name")
    topic_replay: TopicName | None = setting(None, "what a replay's topic starts with", "a Kafka topic name")

    phase: Phase = setting("shadow", "phase of the migration", "shadow, canary, ramp or full")
    expect: Annotated[tuple[EventKind, ...], BeforeValidator(read.read_names)] = setting(
        ("edge", "responses"), "kinds of event a request needs to be complete", "of edge, responses, writes",
        min_length=1,
    )  # fmt: skip
    join_timeout_s: Seconds = setting(
        30.0, "longest wait for a request's other side", _DURATION, gt=0, le=86_400
    )
    lateness_s: Seconds = setting(1.0, "how far the watermark stays behind", _DURATION, le=3600)
    idle_s: Seconds = setting(
        1.0, "a topic read to its end with nothing new for so long no longer holds the watermark back", _DURATION,
        le=3600,
    )  # fmt: skip
    write_settle_s: Seconds = setting(2.0, "wait for writes no response announced", _DURATION, le=86_400)
    write_behind_delay_s: Seconds = setting(
        0.0, "how late the shadow writes on purpose", _DURATION, le=86_400
    )
    conflict_timeout_s: Seconds = setting(
        30.0, "writes so close to one key conflict", _DURATION, gt=0, le=86_400
    )
    idempotency_enabled: Flag = setting(True, "whether idempotency keys are claimed", "true or false")
    idempotency_ttl_s: Seconds = setting(
        3600.0, "how long an idempotency key counts", _DURATION, gt=0, le=2_592_000
    )
    idempotency_strategy: Literal["user_id:operation_type:timestamp", "header"] = setting(
        "user_id:operation_type:timestamp", "how producers make the key; it is read from the records as it stands",
        "user_id:operation_type:timestamp or header",
    )  # fmt: skip
    idempotency_prefix: str = setting(
        "idempotency:", "put before each key in Redis", "1 to 100 characters without spaces",
        pattern=r"^[^\s]{1,100}$",
    )  # fmt: skip
    idempotency_operations: Routes = setting((), "operations that change something", "POST /api/v1/x, …")
    log_conflicts: Flag = setting(True, "whether each conflict is a log line too", "true or false")

    route_templates: Routes = setting((), "routes with path templates", "POST /api/v1/data-sources/{id}, …")
    routes_max: Count = setting(500, "routes told apart; more become (other)", "1 to 10000", ge=1, le=10_000)
    rules: Annotated[tuple[RuleSpec, ...], BeforeValidator(read.read_json_list)] = setting(
        (), "what is ignored, tolerated or required", "a list of {id, route, kind, field, action, params, owner, "
        "reason, expires_at}",
    )  # fmt: skip
    redact: Names = setting((), "further header and field names hidden in logs", "names separated by commas")
    request_id_column: str = setting(
        "request_id",
        "column of Debezium rows with the request id",
        "a column's name",
        min_length=1,
        max_length=63,
    )

    pending_requests_max: Count = setting(
        500_000, "open requests held for each partition", "1 to 10000000", ge=1, le=10_000_000
    )
    closed_requests_max: Count = setting(
        200_000, "verdicts held for each partition, to know late and repeated records", "1 to 10000000",
        ge=1, le=10_000_000,
    )  # fmt: skip
    record_bytes_max: Bytes = setting(
        8 * 2**20,
        "a longer record is rejected",
        "a size such as 8MiB, from 1KiB to 256MiB",
        ge=2**10,
        le=2**28,
    )
    batch_records_max: Count = setting(5000, "records taken at once", "1 to 100000", ge=1, le=100_000)
    postgres_pool_max: Count = setting(8, "PostgreSQL connections of a worker", "1 to 100", ge=1, le=100)
    redis_connections_max: Count = setting(16, "Redis connections of a worker", "1 to 1000", ge=1, le=1000)
    dependency_timeout_s: Seconds = setting(
        10.0, "longest wait for one answer of Kafka, Redis or PostgreSQL", _DURATION, gt=0, le=600
    )
    retention_days: Count = setting(30, "days the tables are kept", "1 to 3650", ge=1, le=3650)
    data_dir: Path = setting(Path("verifier-data"), "folder for what can be rebuilt", "a folder's path")

    database_main: DatabaseTarget | None = setting(None, "the legacy system's database", "a PostgreSQL DSN")
    database_shadow: DatabaseTarget | None = setting(None, "the shadow's database", "a PostgreSQL DSN")
    database_canary: DatabaseTarget | None = setting(None, "the canary's database", "a PostgreSQL DSN")

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "least level logged", "debug, info, warning or error"
    )
    log_format: Literal["json", "console"] = setting("json", "form of the log", "json or console")

    config: Path | None = setting(None, "the YAML file", "a file's path")
    warnings: tuple[str, ...] = Field(default=(), description="what was read but has no effect, for the log")
    extras: tuple[tuple[str, Any], ...] = Field(
        default=(), repr=False, description="unknown keys of known blocks"
    )

    @field_validator("redis", mode="after")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        return SecretStr(read.read_redis_url(value.get_secret_value()))

    @field_validator("postgres", mode="after")
    @classmethod
    def _postgres_dsn(cls, value: SecretStr) -> SecretStr:
        return (
            SecretStr(read.read_postgres_dsn(value.get_secret_value())) if value.get_secret_value() else value
        )

    @field_validator("api_token", mode="after")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the token must be printable ASCII without spaces, to fit into a header")
        return SecretStr(token)

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @property
    def topics(self) -> Topics:
        """Full names: a default with the prefix before it, an overridden one as it stands."""
        return Topics(
            **{
                name: getattr(self, f"topic_{name}") or f"{self.topic_prefix}{default}"
                for name, default in TOPIC_DEFAULTS.items()
            }
        )

    def describe(self) -> dict[str, object]:
        """All settings as JSON types for a log line or `verifier check`: no passwords, no token."""
        redactor = Redactor()
        result: dict[str, object] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "extras":
                result[name] = [key for key, _ in self.extras]
            elif name == "api_token":
                result[name] = HIDDEN if value is not None else None
            elif isinstance(value, SecretStr):
                result[name] = redactor.text(value.get_secret_value())
            elif isinstance(value, DatabaseTarget):
                result[name] = value.describe()
            elif name == "rules":
                result[name] = [rule.model_dump(mode="json") | {"id": rule.rule_id} for rule in self.rules]
            else:
                result[name] = str(value) if isinstance(value, Path) else redactor.value(value)
        return result
