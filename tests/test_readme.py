"""Code of the README, docs/scaling.md and docs/inputs.md runs; links and figures are right."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrobbb.training.run.DEFAULT_STEPS", 40)  # all else at its default
    exec(BLOCKS[0], {})
    assert (tmp_path / "model" / "posterior.json").is_file()
    printed = capsys.readouterr().out
    assert len(re.findall(r"\[\[.*?\]\]", printed, re.DOTALL)) == 3
    assert "ELBO" in printed


def test_the_estimator_runs(monkeypatch):
    monkeypatch.setattr("pyrobbb.estimators.stages.STEPS", 20)
    x = torch.randn(30, 2).numpy()
    names = {"x_train": x[:20], "y_train": x[:20, 0], "x_test": x[20:]}
    exec(BLOCKS[1], names)
    assert names["mean"].shape == names["lower"].shape == names["sd"].shape == (10,)


def test_the_pyro_loop_runs():
    x, y = torch.randn(20, 13), torch.randn(20, 1)
    names = {"batches": [(x[:12], y[:12]), (x[12:], y[12:])], "n_data": 20}
    exec(BLOCKS[2], names)
    assert names["loss"] > 0


def test_every_block_of_code_is_run_by_a_test():
    assert len(BLOCKS) == 3


def test_links_lead_to_files_of_the_repository():
    root, text = README.parent, README.read_text("utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(targets) > 30
    assert [target for target in targets if not (root / target).exists()] == []


def test_every_notebook_is_linked():
    text = README.read_text("utf-8")
    notebooks = (README.parent / "notebooks").glob("*.ipynb")
    assert [path.name for path in notebooks if f"(notebooks/{path.name})" not in text] == []


def test_the_code_on_scaling_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (README.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *("2000", "2000", "1000")
    ]


def test_the_code_on_inputs_runs(capsys):
    text = (README.parent / "docs" / "inputs.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    assert capsys.readouterr().out.count("[") == 4  # the probabilities of three rows


def test_the_times_of_a_step_are_those_in_the_results_of_the_benchmark():
    def rows(text):
        lines = [line.strip("|").split("|") for line in text.splitlines()]
        return [[cell.strip(" *") for cell in cells] for cells in lines if len(cells) == 4]

    results = (README.parent / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    steps = results.split("## One training step")[1].split("### Ratios of a step")[0]
    measured = {}
    for label, _, milliseconds, _ in rows(steps):
        measured.setdefault(label, []).append(milliseconds)
    page = (README.parent / "docs" / "benchmarks" / "index.md").read_text("utf-8")
    shown = {label: cells for label, *cells in rows(page) if label in measured}
    del shown[""], measured[""]
    assert len(shown) == 10
    for label, cells in shown.items():
        for cell, milliseconds in zip(cells, measured[label], strict=True):
            assert float(cell) == pytest.approx(float(milliseconds), rel=0.05), label
