"""The command line.

Exit 0 fine, 1 something is wrong with the data, 2 wrong usage or configuration, 3 a dependency cannot be reached.

Each command imports what it needs when it runs: a worker's start costs CPU at every restart, and it needs no report.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from verifier.commands.fail_on import FAIL_ON
from verifier.core.errors import DependencyDown, VerifierError

if TYPE_CHECKING:
    from verifier.adapters.settings import Settings

app = typer.Typer(
    help="Says whether a new system does the same as the live one it replaces.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
Config = Annotated[Path | None, typer.Option(help="YAML file, instead of VERIFIER_CONFIG.")]


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def settings_or_exit(config: Path | None) -> Settings:
    """Load the settings and set up logging, or end with all problems and exit code 2."""
    from verifier.adapters.logging import configure_logging
    from verifier.adapters.settings import SettingsError, load_settings

    try:
        settings = load_settings(os.environ, config_path=config)
    except SettingsError as error:
        _fail(str(error), 2)
    configure_logging(level=settings.log_level, fmt=settings.log_format, redact=settings.redact)
    return settings


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run asynchronous work and turn the verifier's errors into exit codes."""
    import uvloop

    try:
        return uvloop.run(work)
    except DependencyDown as error:
        _fail(str(error), 3)
    except VerifierError as error:
        _fail(str(error), 2)


@app.command()
def worker(config: Config = None) -> None:
    """Run a worker: join, compare, reconcile, publish, and serve the REST API."""
    gc.disable()  # of what the imports make nearly all stays; `run_worker` turns it on again
    from verifier.commands.worker import run_worker

    run(run_worker(settings_or_exit(config)))


@app.command()
def init(
    config: Config = None,
    wait_s: Annotated[float, typer.Option(help="How long to wait for Kafka and PostgreSQL.")] = 60.0,
) -> None:
    """Create the topics and bring the tables up to date; safe to repeat."""
    from verifier.commands.init import run_init

    run(run_init(settings_or_exit(config), typer.echo, wait_s=wait_s))


@app.command()
def check(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check configuration, connections, topics and tables, and say what to mend."""
    import msgspec

    from verifier.commands.check import State, exit_code, run_check

    findings = run(run_check(settings_or_exit(config)))
    if as_json:
        typer.echo(msgspec.json.encode(findings).decode())
    else:
        marks = {State.OK: "ok     ", State.WARNING: "warning", State.WRONG: "WRONG  ", State.AWAY: "AWAY   "}
        for finding in findings:
            typer.echo(f"{marks[finding.state]}  {finding.what}: {finding.detail}")
    raise typer.Exit(exit_code(findings))


@app.command()
def demo(
    requests: Annotated[int, typer.Option(min=25, max=6000, help="How many requests users send.")] = 5000,
    rate: Annotated[float, typer.Option(min=1.0, help="Requests a second.")] = 200.0,
    seed: Annotated[int, typer.Option(help="Which requests, and which of them meet a fault.")] = 7,
    faults: Annotated[bool, typer.Option(help="Plant faults, or run both sides alike (A/A).")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, and say where to look.")] = False,
) -> None:
    """Run the whole system on this machine, with planted faults, and report what was found."""
    from verifier.commands.demo import run_demo
    from verifier.demo.run import DemoOptions

    options = DemoOptions(requests=requests, rate_per_s=rate, seed=seed, faults=faults)
    raise typer.Exit(run_demo(options, keep=keep))


@app.command("offline")
def offline_command(
    paths: Annotated[list[str], typer.Argument(help="Files or folders of records; - is standard input.")],
    form: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    sqlite: Annotated[Path | None, typer.Option(help="Leave the tables in this SQLite file.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="YAML list of rules instead of the configured ones.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file, instead of VERIFIER_CONFIG.")] = None,
    expect: Annotated[
        str | None, typer.Option(help="What a request needs: of edge, responses, writes.")
    ] = None,
    join_timeout: Annotated[
        str | None, typer.Option(help="Longest wait for the other side in event time, such as 30s.")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            help="What makes the exit code 1: of divergence, incomplete, conflict, incomparable, rejected."
        ),
    ] = ",".join(FAIL_ON),
    partitions: Annotated[int, typer.Option(help="Partitions to split the work into.")] = 1,
) -> None:
    """Judge recorded files without any server: plain, gzip or zstd NDJSON, NGINX's JSON access logs among them."""
    from verifier.commands.offline import offline

    code = offline(
        paths,
        form=form,
        sqlite=sqlite,
        rules=rules,
        config=config,
        expect=expect,
        join_timeout=join_timeout,
        fail_on=fail_on,
        partitions=partitions,
    )
    raise typer.Exit(code)


def main() -> None:
    """Entry point."""
    app()
