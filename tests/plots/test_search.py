"""Plot of a search: the lines are the rows of the table."""

import numpy as np
import pandas as pd
import pytest

from pyrobbb import plots

SINGLE = pd.DataFrame(
    {
        "likelihood": ["gaussian"] * 3 + ["student_t"] * 3,
        "hidden": [(50,)] * 6,
        "kl_weight": [np.nan, 0.25, 1.0] * 2,
        "epochs": 10,
        "log_density": [-1.0, -1.2, -1.1, -0.5, -0.6, -0.7],
        "standard_error": [0.1, 0.2, 0.3, 0.0, 0.0, 0.1],
        "is_chosen": [False] * 3 + [True] + [False] * 2,
    }
)


def curves(ax):
    return {c.get_label(): c for c in ax.containers}


def test_each_likelihood_has_a_line_with_error_bars():
    ax = plots.plot_search(SINGLE)
    assert list(curves(ax)) == ["gaussian", "student_t"]
    line, _, (bars,) = curves(ax)["gaussian"].lines
    np.testing.assert_allclose(line.get_xydata(), [[0.25, -1.2], [1.0, -1.1]])
    heights = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, [[-1.4, -1.0], [-1.4, -0.8]])
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in dashed] == [[-1.0] * 2, [-0.5] * 2, []]
    assert dashed[2].get_label() == "all chains together"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.25", "1"]


def test_an_estimator_stands_for_its_search():
    class Estimator:
        search_ = SINGLE

    ax = plots.plot_search(Estimator())
    assert len(ax.containers) == 2
    assert plots.plot_search(Estimator(), ax=ax) is ax


def test_labels_name_what_differs():
    other = SINGLE.assign(hidden=[(50,)] * 3 + [(50, 50)] * 3, likelihood="gaussian")
    assert list(curves(plots.plot_search(other))) == ["hidden (50,)", "hidden (50, 50)"]
    longer = pd.concat([SINGLE, SINGLE[3:].assign(epochs=4000)])
    labels = list(curves(plots.plot_search(longer)))
    assert labels == ["gaussian, 10 epochs", "student_t, 10 epochs", "student_t, 4,000 epochs"]


def test_mixtures_alone_are_lines_with_labels():
    ax = plots.plot_search(SINGLE[SINGLE.kl_weight.isna()])
    assert not ax.containers
    assert [line.get_label() for line in ax.lines] == ["gaussian", "student_t"]


def test_what_is_no_search_is_refused():
    class Fixed:
        search_ = None

    with pytest.raises(ValueError, match=r"`search` has tried nothing: its search_ is None\. Fit"):
        plots.plot_search(Fixed())
    with pytest.raises(
        TypeError, match="must be a fitted estimator or its search_, a DataFrame, got a"
    ):
        plots.plot_search([1.0])
