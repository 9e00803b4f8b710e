"""The README's code runs as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrobbb.fitting.DEFAULT_STEPS", 40)  # the rest at its defaults
    exec(BLOCKS[0], {})
    assert (tmp_path / "model" / "posterior.json").is_file()
    assert len(re.findall(r"\[\[.*?\]\]", capsys.readouterr().out, re.DOTALL)) == 3


def test_the_pyro_loop_runs():
    x, y = torch.randn(20, 13), torch.randn(20, 1)
    names = {"batches": [(x[:12], y[:12]), (x[12:], y[12:])], "n_data": 20, "x_test": x[:5]}
    exec(BLOCKS[1], names)
    assert names["draws"]["y"].shape == (200, 5, 1)
    assert names["loss"] > 0


def test_there_is_no_block_that_is_not_run():
    assert len(BLOCKS) == 2
