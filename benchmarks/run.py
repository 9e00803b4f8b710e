"""Run the benchmarks, and write what they give: results.json, RESULTS.md and steps.png.

    python benchmarks/run.py                        # all, on made images
    python benchmarks/run.py --data FOLDER          # on MNIST
    python benchmarks/run.py --only step --rounds 9

On a quiet machine: what else runs is in the numbers. With --quick everything runs, as little as
possible, and the results go into the folder `quick` here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from argparse import Namespace
from datetime import date
from pathlib import Path
from typing import Any

from harness import HERE, Options, options_of, parser, run_cases
from machine import describe
from report import BENCHMARKS, REMARKS, RESULTS, write_report

ROUNDS = 5


def main() -> None:
    """Run what is asked for."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--rounds", type=int, help=f"how often each case runs: {ROUNDS}, or 1 with --quick"
    )
    arguments.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS)
    )
    given = arguments.parse_args()
    options = options_of(given)
    folder = HERE / "quick" if options.quick else HERE
    folder.mkdir(exist_ok=True)
    results = _earlier(folder / RESULTS, keep=given.only is not None)
    results |= {"quick": options.quick}
    # Bytecode is kept, as that of an installed package is: other libraries have theirs from pip.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as cache:
        # PyTorch keeps what it compiles: here for this run only, whatever ran before it.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for name in given.only or BENCHMARKS:
            done = run_benchmark(name, options, given.rounds)
            results["benchmarks"][name] = {"command": _command(given), **done}
            (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
            write_report(folder, HERE / REMARKS)


def run_benchmark(name: str, options: Options, rounds: int | None) -> dict[str, Any]:
    """Run one benchmark; give its rows, and when and how often it ran."""
    module = BENCHMARKS[name]
    if rounds is None:
        rounds = 1 if options.quick else min(ROUNDS, getattr(module, "MAX_ROUNDS", ROUNDS))
    rows = list(run_cases(f"{name}.py", module.cases(options), options, rounds, _say))
    made = {"date": date.today().isoformat(), "rounds": rounds, "machine": describe()}
    return {**made, "rows": rows}


def _earlier(path: Path, *, keep: bool) -> dict[str, Any]:
    """Return earlier results where only some are renewed."""
    return json.loads(path.read_text()) if keep and path.exists() else {"benchmarks": {}}


def _command(given: Namespace) -> str:
    words = ["python benchmarks/run.py"]
    if given.quick:
        words.append("--quick")
    if given.data is not None:
        words.append("--data FOLDER")
    if given.rounds is not None:
        words.append(f"--rounds {given.rounds}")
    if given.only is not None:
        words.append(f"--only {' '.join(given.only)}")
    return " ".join(words)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
