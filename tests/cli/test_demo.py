"""The command line: the demonstration and the cross-check, on a small budget; and the pictures."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure

from pyrobbb import BayesianNetwork, fit, mlp, plots
from pyrobbb.cli.main import main
from pyrobbb.prediction.predictions import make_prediction


def test_the_demo_prints_its_tables_and_draws_its_pictures(tmp_path, capsys):
    assert main(["demo", "--quick", "--out", str(tmp_path / "pictures")]) == 0
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
    ):
        assert words in shown
    assert "DIFFER" not in shown
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["classification.png", "regression.png"]


def test_check_agrees_and_says_so_by_its_exit_code(capsys, monkeypatch):
    assert main(["check", "--seed", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("All 17 comparisons agree.") == 3
    monkeypatch.setattr("pyrobbb.model.guides.scale_of", torch.exp)
    assert main(["check"]) == 1
    assert "DIFFER" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["check", "--help"]])
def test_help_shows_what_there_is(arguments, capsys):
    assert main(arguments) == 0
    assert "pyrobbb" in capsys.readouterr().out


def test_a_call_that_is_off_exits_with_2(capsys):
    assert main(["dance"]) == 2
    assert "No such command 'dance'" in capsys.readouterr().err


# Pictures: that each shows the numbers it is given. Whether they are beautiful, a person looks at.

LOC = torch.tensor([[0.0, 5.0, -3.0], [1.0, 5.1, 4.0]])
REGRESSION = make_prediction([dist.Normal(LOC, torch.tensor(0.5))], np.empty(0))
Y = np.array([0.2, 9.0, 0.0])


def test_plot_band_draws_the_mean_in_the_order_of_x():
    ax = plots.plot_band([3.0, 1.0, 2.0], REGRESSION)
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), REGRESSION.mean[[1, 2, 0]])
    assert len(ax.collections) == 2


def test_plot_intervals_marks_what_lies_outside():
    ax = plots.plot_intervals(REGRESSION, Y)
    inside, outside = ax.lines[1], ax.lines[2]
    np.testing.assert_array_equal(outside.get_ydata(), [9.0])
    assert len(inside.get_ydata()) == 2
    assert any("outside (33%)" in text.get_text() for text in ax.get_legend().get_texts())


def test_plot_coverage_draws_the_coverage_of_each_level():
    ax = plots.plot_coverage(REGRESSION, Y)
    assert len(ax.lines) == 2  # the diagonal and the curve
    assert ax.lines[1].get_ydata().max() == pytest.approx(2 / 3)
    plots.plot_coverage(REGRESSION, Y, ax=ax)
    assert len(ax.lines) == 3  # the diagonal is drawn once


def test_plot_reliability_and_uncertainty_take_class_predictions():
    probs = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
    prediction = make_prediction([dist.Categorical(probs=probs)], np.empty(0))
    ax = plots.plot_reliability(prediction, [0, 1, 1], n_bins=2)
    assert ax.lines[1].get_ydata() == pytest.approx([2 / 3])
    ax = plots.plot_uncertainty(prediction, [0, 1, 1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right", "wrong"]


def test_plots_of_a_fit_draw_into_the_axes_they_are_given():
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    posterior = fit(BayesianNetwork(mlp(1, [4], 1, seed=0)), x, x, epochs=3, progress=False, seed=0)
    first, second = Figure().subplots(1, 2)
    assert plots.plot_history(posterior.history, ax=first) is first
    np.testing.assert_allclose(first.lines[0].get_ydata(), posterior.history.nelbo, rtol=1e-6)
    assert plots.plot_snr(posterior, ax=second) is second
    assert sum(bar.get_height() for bar in second.patches) == 13  # the weights of 1-4-1
