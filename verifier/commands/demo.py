"""`verifier demo`: the whole system on this machine, with a report. See `verifier.demo.run`."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from verifier.demo import offline_run, run
from verifier.demo.run import DemoOptions, Running
from verifier.demo.score import Score
from verifier.demo.stack.errors import StackError
from verifier.demo.stack.probe import kafka_source, missing
from verifier.demo.traffic import TrafficError
from verifier.report import Report
from verifier.report_text import render_text

EXIT_WRONG, EXIT_USAGE, EXIT_AWAY = 1, 2, 3
EDGE_PACKAGES = ("nginx", "rsyslog")


def run_demo(options: DemoOptions, *, keep: bool) -> int:
    """Run the demo and return the exit code: 0 when everything planted was found and nothing else."""
    started = time.monotonic()
    console = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {line}", soft_wrap=True)

    lacking = missing()
    source = kafka_source()
    try:
        with _ends_on_signals():
            if source.available and not lacking:
                return _full(options, say, console, keep=keep)
            why = [source.why] if not source.available else []
            why += [f"{one.program} is absent (Debian package {one.package})" for one in lacking]
            say(f"[yellow]without Kafka, offline instead:[/] {'; '.join(why)}")
            report, scored = offline_run.run_offline(options, say)
            return _conclude(report, scored, say)
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        return 130
    except TrafficError as error:
        say(f"[red]{error}[/]")
        return EXIT_WRONG
    except StackError as error:
        say(f"[red]{error}[/]")
        return EXIT_AWAY


def _full(options: DemoOptions, say: Callable[[str], None], console: Console, *, keep: bool) -> int:
    with run.running_system(options, say) as running:
        ready = time.monotonic()
        say(f"sending {options.requests} requests of many users at {options.rate_per_s:.0f}/s")
        with _progress(console) as progress:
            task = progress.add_task("requests", total=options.requests)
            sent = asyncio.run(
                run.send_through(
                    running.edge_url,
                    running.shadow_url,
                    options,
                    lambda n: progress.update(task, completed=n),
                )
            )
            task = progress.add_task("verdicts", total=len(sent))
            done = asyncio.run(
                run.wait_for_verdicts(running, len(sent), lambda n: progress.update(task, completed=n))
            )
        if not done:
            say(f"[red]not every request had its verdict within {run.VERDICTS_WITHIN_S:.0f} s[/]")
        report, scored = asyncio.run(run.look(running, options))
        code = _conclude(report, scored, say) if done else EXIT_WRONG
        say(f"{time.monotonic() - ready:.0f} s from the first request to the report")
        if keep:
            _keep(running, say)
        return code


def _conclude(report: Report, scored: Score, say: Callable[[str], None]) -> int:
    tty = sys.stdout.isatty()
    width = shutil.get_terminal_size((110, 40)).columns
    sys.stdout.write(render_text(report, width=width, colour=tty))
    sys.stdout.flush()
    if scored.perfect:
        say("[green]every planted fault was found, and there was no false alarm[/]")
        return 0
    say(f"[red]{len(scored.missed)} planted faults missed, {len(scored.false_alarms)} false alarms[/]")
    return EXIT_WRONG


def _keep(running: Running, say: Callable[[str], None]) -> None:
    say("it goes on running; Ctrl-C ends it. Where to look:")
    for what, where in running.places():
        say(f"  {what}: {where}")
    signal.pause()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("          {task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the demo, even where a shell had them ignored, so that nothing is left running."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
