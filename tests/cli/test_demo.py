"""The demonstration and the cross-check, on a small budget."""

import pytest
import torch

from pyrobbb.cli.main import main


def test_the_demo_prints_its_tables_and_draws_its_figures(tmp_path, capsys):
    assert main(["demo", "--quick", "--out", str(tmp_path / "figures")]) == 0
    shown = capsys.readouterr().out
    for words in (
        "comparisons agree",
        "Regression: diabetes",
        "Classification: digits",
        "Bayes by Backprop",
        "same net, no Bayes",
        "linear model",
        "NLL",
        "ECE",
        "KL weights with the lowest NLL",
    ):
        assert words in shown
    assert "DIFFER" not in shown
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["classification.png", "regression.png"]


def test_check_exits_with_1_unless_all_agree(capsys, monkeypatch):
    assert main(["check", "--seed", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("All 17 comparisons agree.") == 3
    monkeypatch.setattr("pyrobbb.model.mean_field.scale_of", torch.exp)
    assert main(["check"]) == 1
    assert "DIFFER" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["check", "--help"]])
def test_help_is_printed(arguments, capsys):
    assert main(arguments) == 0
    assert "pyrobbb" in capsys.readouterr().out


def test_an_unknown_command_exits_with_2(capsys):
    assert main(["dance"]) == 2
    assert "No such command 'dance'" in capsys.readouterr().err
