"""Write RESULTS.md and the chart from results.json."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import auto_choice
import cold_fit
import gradient_variance
import import_time
import prediction
import scaling
import step
import target_nll
import trunks

BENCHMARKS: dict[str, ModuleType] = {
    module.__name__: module
    for module in (
        step,
        cold_fit,
        auto_choice,
        target_nll,
        prediction,
        scaling,
        gradient_variance,
        import_time,
        trunks,
    )
}
RESULTS, REPORT, REMARKS, CHART = "results.json", "RESULTS.md", "remarks.md", "steps.png"
QUICK = "**A quick run: a check that everything runs. Its numbers mean nothing.**"


def write_report(folder: Path, remarks: Path) -> None:
    """Write the report on the results in a folder.

    Parameters
    ----------
    folder : path
        Holds results.json; the report and its chart go there.
    remarks : path
        A file that is included verbatim, if it exists.
    """
    results = json.loads((folder / RESULTS).read_text())
    parts = ["# Benchmarks", _made_by(results)]
    if results["quick"]:
        parts.append(QUICK)
    if remarks.exists():
        parts.append(remarks.read_text().strip())
    for name, module in BENCHMARKS.items():
        if name not in results["benchmarks"]:
            continue
        rows = results["benchmarks"][name]["rows"]
        parts.append(f"## {module.TITLE}")
        caption = module.caption(rows) if hasattr(module, "caption") else module.CAPTION
        parts.append(_wrapped(caption))
        if name == "step" and _draw_steps(rows, folder / CHART):
            parts.append(f"![Milliseconds per step, by library and by network]({CHART})")
        parts.append(module.section(rows))
    (folder / REPORT).write_text("\n\n".join(parts) + "\n")


def _made_by(results: dict[str, Any]) -> str:
    """List the machines, each with what ran on it."""
    parts = [
        _wrapped(
            "Made by `make bench`, with options in `BENCH`: `make bench BENCH=--quick` is a smoke "
            "run. The samples are in `results.json`. Machines differ: compare only ratios within "
            "one run."
        )
    ]
    machines: list[dict[str, str]] = []
    for done in results["benchmarks"].values():
        if done["machine"] not in machines:
            machines.append(done["machine"])
    for machine in machines:
        made = [
            f"- {name}: {_rounds(done['rounds'])}, {done['date']}, by `{done['command']}`"
            for name, done in results["benchmarks"].items()
            if done["machine"] == machine
        ]
        described = "; ".join(f"{name}: {value}" for name, value in machine.items())
        parts += ["\n".join(made), _wrapped(described[0].upper() + described[1:] + ".")]
    return "\n\n".join(parts)


def _rounds(number: int) -> str:
    return "1 round" if number == 1 else f"{number} rounds"


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100)


def _draw_steps(rows: list[dict[str, Any]], path: Path) -> bool:
    from chart import draw_steps

    return draw_steps(rows, path)


if __name__ == "__main__":
    here = Path(__file__).parent
    write_report(here, here / REMARKS)
