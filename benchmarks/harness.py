"""Cases: what a benchmark measures, each in its own process, alternating over several rounds."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HERE = Path(__file__).parent
TIMEOUT = 3600
"""Seconds after which a case is given up."""


@dataclass(frozen=True)
class Options:
    """The options of all benchmarks.

    Attributes
    ----------
    quick : bool
        As little of everything as shows that it runs; the numbers mean nothing.
    data : path or None
        A folder with MNIST.
    """

    quick: bool = False
    data: Path | None = None


@dataclass(frozen=True)
class Case:
    """One call of a benchmark's script.

    Attributes
    ----------
    arguments : dict
        Its options on the command line, without the dashes. They go into each row that it gives.
    """

    arguments: dict[str, Any]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a smoke run: as little as possible")
    made.add_argument("--data", type=Path, metavar="FOLDER", help="with MNIST's IDX files")
    return made


def options_of(arguments: argparse.Namespace) -> Options:
    """Return the options of all benchmarks."""
    return Options(arguments.quick, arguments.data)


def emit(measure: Callable[[], Iterable[Row]]) -> None:
    """Print each row that is measured as a line of JSON; an error is a row with its reason."""
    try:
        for row in measure():
            print(json.dumps(row), flush=True)
    except Exception as error:  # whatever a library raises: the others are measured all the same
        print(json.dumps({"failed": reason(type(error).__name__, error)}), flush=True)


def reason(kind: str, message: object, longest: int = 240) -> str:
    """Return in one line why something failed."""
    lines = str(message).strip().splitlines() or [""]
    text = f"{kind}: {lines[0]}" if lines[0] else kind
    return text if len(text) <= longest else f"{text[:longest]}..."


def limit_threads(n: int | None, library: str = "torch") -> int:
    """Bound the threads of a library that is not imported yet; give how many it will take."""
    available = len(os.sched_getaffinity(0)) if can_pin() else os.cpu_count() or 1
    if n is None:
        return available
    if library == "jax":  # it has no option for it, but counts the processors it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(n)
    return n


def can_pin() -> bool:
    """Return whether this system lets a process choose its processors."""
    return hasattr(os, "sched_setaffinity")


def run_cases(
    script: str, cases: list[Case], options: Options, rounds: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """Run each case once a round, in another order each time; yield all rows.

    Parameters
    ----------
    script : str
        File in this folder.
    cases : list of Case
    options : Options
    rounds : int
    say : callable
        Called with each case before it runs.

    Yields
    ------
    dict
        What the case printed, its arguments and the round.
    """
    shuffled = random.Random(0)
    for number in range(rounds):
        for case in shuffled.sample(cases, len(cases)):
            words = " ".join(str(value) for value in case.arguments.values())
            say(f"{script} round {number + 1}/{rounds}: {words}")
            for row in run_case(script, case, options):
                yield {**case.arguments, **row, "round": number}


def run_case(script: str, case: Case, options: Options) -> list[Row]:
    """Run a case in a process of its own; give the rows that it printed."""
    command = [sys.executable, "-W", "ignore", str(HERE / script), *_flags(case, options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return [{"failed": f"took more than {TIMEOUT} s"}]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        rows.append({"failed": reason(f"exit status {done.returncode}", last)})
    return rows


def wall_seconds(
    command: list[str], environment: dict[str, str] | None = None
) -> tuple[float, str]:
    """Time a command from its start to its end; give the seconds and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(last or f"exit status {done.returncode}")
    return seconds, done.stdout


def _flags(case: Case, options: Options) -> list[str]:
    flags = [word for name, value in case.arguments.items() for word in (f"--{name}", str(value))]
    if options.quick:
        flags.append("--quick")
    if options.data is not None:
        flags += ["--data", str(options.data)]
    return flags
