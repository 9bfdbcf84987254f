"""The migration's own configuration blocks, as they circulate: `idempotency:`, `shadowing:`, `database:`.

They are written for the backends and the proxy; this module takes from them what the verifier must agree with and
names it as its own settings. What it does not know there is kept and warned about, never refused: the same file
serves others. A strategy that the verifier cannot follow is refused, because its verdicts would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr

from verifier.adapters.redaction import Redactor
from verifier.adapters.settings_values import read_duration, read_flag

BLOCKS = ("idempotency", "shadowing", "database")
PHASES = ("shadow", "canary", "ramp", "full")
IDEMPOTENCY_STRATEGIES = ("user_id:operation_type:timestamp", "header")
CONFLICT_STRATEGIES = ("first_write", "first_write_wins", "first-write", "first-write-wins")

# After a write-behind pause the write still has to be made, captured and read.
WRITE_SETTLE_AFTER_DELAY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with the settings: where, what is expected there, and what was given (secrets hidden)."""

    name: str
    expected: str
    given: str = ""
    hint: str = ""

    def __str__(self) -> str:
        given = f"; given: {self.given}" if self.given else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.name}: expected {self.expected}{given}{hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A raw value and where it stands, for messages."""

    value: object
    source: str


@dataclass(slots=True, kw_only=True)
class BlockReading:
    """What the blocks say, in the verifier's own names."""

    values: dict[str, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    extras: list[tuple[str, object]] = field(default_factory=list)


class _Section:
    """One mapping of a block. Remembers which keys were taken, so that the rest can be kept and warned about."""

    def __init__(self, reading: BlockReading, file: str, path: str, content: object) -> None:
        self.reading = reading
        self.file = file
        self.path = path
        self._rest: dict[str, object] = {}
        if isinstance(content, Mapping):
            self._rest = {str(key): value for key, value in content.items()}
        elif content is not None:
            self.problem("", "a mapping of keys to values", f"a {type(content).__name__}")

    def source(self, key: str) -> str:
        return f"{self.file}: {self.path}.{key}" if key else f"{self.file}: {self.path}"

    def take(self, *keys: str) -> tuple[str, object]:
        """The first of these spellings that is there, with its value; else the first spelling and None."""
        for key in keys:
            if self._rest.get(key) is not None:
                return key, self._rest.pop(key)
            self._rest.pop(key, None)
        return keys[0], None

    def section(self, *keys: str) -> _Section:
        key, content = self.take(*keys)
        return _Section(self.reading, self.file, f"{self.path}.{key}", content)

    def problem(self, key: str, expected: str, given: str = "", hint: str = "") -> None:
        self.reading.problems.append(
            Problem(name=self.source(key), expected=expected, given=Redactor().text(given), hint=hint)
        )

    def warn(self, key: str, text: str) -> None:
        self.reading.warnings.append(f"{self.source(key)}: {text}")

    def use(self, setting: str, *keys: str) -> None:
        """Take the value under one of `keys` as the verifier's `setting`."""
        key, value = self.take(*keys)
        if value is not None:
            self.give(setting, key, value)

    def give(self, setting: str, key: str, value: object) -> None:
        if setting not in self.reading.values:
            self.reading.values[setting] = Given(value=value, source=self.source(key))

    def flag(self, *keys: str) -> bool | None:
        """A true or false that is only looked at; anything else is a problem."""
        key, value = self.take(*keys)
        if value is None:
            return None
        try:
            return read_flag(value)
        except ValueError:
            self.problem(key, "true or false", str(value))
            return None

    def choice(self, expected: tuple[str, ...], why: str, *keys: str) -> str | None:
        key, value = self.take(*keys)
        if value is None:
            return None
        if not isinstance(value, str) or value.strip().lower() not in expected:
            self.problem(key, " or ".join(expected), str(value), why)
            return None
        return value.strip().lower()

    def finish(self) -> None:
        for key, value in self._rest.items():
            self.reading.extras.append((f"{self.path}.{key}", value))
            self.warn(key, "the verifier knows no such key; kept without effect")
        self._rest.clear()


def read_blocks(document: Mapping[str, object], environ: Mapping[str, str], *, file: str) -> BlockReading:
    """Translate the three blocks of `document`. `file` names it in messages; `environ` resolves `password_env`."""
    reading = BlockReading()
    if document.get("idempotency") is not None:
        _read_idempotency(_Section(reading, file, "idempotency", document["idempotency"]), environ)
    if document.get("database") is not None:
        _read_databases(_Section(reading, file, "database", document["database"]), environ)
    if document.get("shadowing") is not None:
        _read_shadowing(_Section(reading, file, "shadowing", document["shadowing"]), environ)
    return reading


def _read_idempotency(block: _Section, environ: Mapping[str, str]) -> None:
    block.use("idempotency_enabled", "enabled")
    block.use("idempotency_operations", "operations")
    key = block.section("key")
    strategy = key.choice(IDEMPOTENCY_STRATEGIES, "the verifier supports no other key strategy", "strategy")
    if strategy is not None:
        key.give("idempotency_strategy", "strategy", strategy)
    key.use("idempotency_ttl_s", "ttl", "ttl_s", "ttl_seconds")
    key.finish()
    block.use("idempotency_ttl_s", "ttl", "ttl_s", "ttl_seconds")
    _read_redis(block.section("storage"), environ)
    block.finish()


def _read_redis(storage: _Section, environ: Mapping[str, str]) -> None:
    storage.choice(("redis",), "claims are held in Redis alone", "type", "backend")
    storage.use("idempotency_prefix", "prefix", "key_prefix")
    key, address = storage.take("url", "address", "addr")
    database_key, database = storage.take("database", "db")
    password = _read_password(storage, environ)
    storage.finish()
    if address is None:
        if database is not None or password is not None:
            storage.problem("url", "redis://host:port/database, to go with the database or password given")
        return
    if not isinstance(address, str):
        storage.problem(key, "redis://host:port/database, or host:port", f"a {type(address).__name__}")
        return
    try:
        parts = urlsplit(address if "://" in address else f"redis://{address}")
    except ValueError:
        storage.problem(key, "redis://host:port/database, or host:port", "(hidden)")
        return
    if database is not None:
        named = parts.path.strip("/")
        if not str(database).isdigit() or named not in ("", str(database)):
            storage.problem(database_key, "a database number, the same as in the URL", str(database))
            return
        parts = parts._replace(path=f"/{database}")
    if password is not None and "@" not in parts.netloc:
        parts = parts._replace(netloc=f":{quote(password, safe='')}@{parts.netloc}")
    storage.give("redis", key, urlunsplit(parts))


def _read_password(section: _Section, environ: Mapping[str, str]) -> str | None:
    _, password = section.take("password")
    key, variable = section.take("password_env", "password_from_env")
    if variable is not None:
        if not environ.get(str(variable)):
            section.problem(key, f"the environment variable {variable} to be set", "it is not set or empty")
            return None
        return environ[str(variable)]
    return None if password is None else str(password)


def _read_shadowing(block: _Section, environ: Mapping[str, str]) -> None:
    if block.flag("enabled") is False:
        block.warn("enabled", "mirroring is off: the verifier will see no shadow")
    mode_key, mode = block.take("mode")
    if isinstance(mode, str) and mode.strip().lower() in PHASES:
        block.give("phase", mode_key, mode.strip().lower())
    elif mode is not None:
        block.warn(mode_key, f"{mode!r} is no phase ({', '.join(PHASES)}); VERIFIER_PHASE sets the phase")
        block.reading.extras.append((f"{block.path}.{mode_key}", mode))
    _read_safe_write(block.section("safe_write"), environ)
    conflicts = block.section("conflict_resolution", "conflicts")
    conflicts.choice(
        CONFLICT_STRATEGIES, "the verifier settles conflicts by the first write alone", "strategy"
    )
    conflicts.use("log_conflicts", "log_conflicts")
    conflicts.use("conflict_timeout_s", "timeout", "timeout_s", "timeout_seconds")
    conflicts.finish()
    block.finish()


def _read_safe_write(section: _Section, environ: Mapping[str, str]) -> None:
    section.flag("enabled")
    for side in ("main", "shadow", "canary"):
        key, name = section.take(f"{side}_database", f"{side}_db")
        if name is not None:
            _read_named_database(section, key, side, name, environ)
    databases = section.section("databases")
    for side in ("main", "shadow", "canary"):
        _, entry = databases.take(side)
        if entry is not None:
            _read_named_database(databases, side, side, entry, environ)
    databases.finish()
    for key in ("write_through", "write_behind"):
        _read_write_mode(section, key)
    section.finish()


def _read_named_database(
    section: _Section, key: str, side: str, entry: object, environ: Mapping[str, str]
) -> None:
    if isinstance(entry, Mapping) or (isinstance(entry, str) and "://" in entry):
        _read_database(section, key, side, entry, environ)
        return
    known = section.reading.values.get(f"database_{side}")
    if known is None:
        section.reading.extras.append((f"{section.path}.{key}", entry))
        section.warn(key, f"a name without a host: add database.{side} for `verifier reconcile` to read it")
    elif isinstance(known.value, Mapping) and known.value.get("name") != entry:
        section.problem(key, f"the database named in {known.source}, {known.value.get('name')}", str(entry))


def _read_write_mode(section: _Section, key: str) -> None:
    """`write_through: true`, `write_behind: 5s`, or either as a mapping. Only the delay concerns the verifier."""
    flat_key, delay = section.take(f"{key}_delay", f"{key}_delay_s")
    _, mode = section.take(key)
    enabled: bool | None = True
    if isinstance(mode, Mapping):
        inner = _Section(section.reading, section.file, f"{section.path}.{key}", mode)
        enabled = inner.flag("enabled")
        inner_key, inner_delay = inner.take("delay", "delay_s", "after", "interval")
        inner.finish()
        if inner_delay is not None:
            flat_key, delay = f"{key}.{inner_key}", inner_delay
    elif mode is not None and key == "write_behind" and not isinstance(mode, bool):
        flat_key, delay = key, mode
    elif mode is not None:
        try:
            enabled = read_flag(mode)
        except ValueError:
            section.problem(key, "true, false, or a mapping", str(mode))
    if delay is None or enabled is False:
        return
    if key == "write_through":
        section.warn(flat_key, "write-through has no delay; kept without effect")
        return
    try:
        delay_s = read_duration(delay)
    except ValueError:
        section.problem(flat_key, "a duration such as 5s", str(delay))
        return
    section.give("write_behind_delay_s", flat_key, delay_s)
    section.give("write_settle_s", flat_key, delay_s + WRITE_SETTLE_AFTER_DELAY_S)


def _read_databases(block: _Section, environ: Mapping[str, str]) -> None:
    for side in ("main", "shadow", "canary"):
        _, entry = block.take(side)
        if entry is not None:
            _read_database(block, side, side, entry, environ)
    block.finish()


def _read_database(block: _Section, key: str, side: str, entry: object, environ: Mapping[str, str]) -> None:
    if isinstance(entry, str):
        block.give(f"database_{side}", key, entry)
        return
    section = _Section(block.reading, block.file, f"{block.path}.{key}", entry)
    if not isinstance(entry, Mapping):
        return  # the section has said so
    _, dsn = section.take("dsn", "url")
    password = _read_password(section, environ)
    fields: dict[str, object] = {}
    for name, spellings in {
        "host": ("host", "hostname"),
        "port": ("port",),
        "name": ("name", "database", "dbname"),
        "user": ("user", "username"),
        "sslmode": ("sslmode", "ssl_mode"),
    }.items():
        _, value = section.take(*spellings)
        if value is not None:
            fields[name] = value
    if password is not None:
        fields["password"] = SecretStr(password)
    section.finish()
    if dsn is not None and fields:
        section.problem("dsn", "either a DSN or host, port, name, user and password, not both")
        return
    block.give(f"database_{side}", key, dsn if dsn is not None else fields)
