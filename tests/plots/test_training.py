"""Plots of the training: the values of lines, for short and for long fits."""

import numpy as np
from matplotlib.figure import Figure

from pyrobbb import plots
from pyrobbb.fitted.history import History


def history_of(n_epochs):
    nelbo = np.random.default_rng(0).normal(size=n_epochs)
    return History(nelbo, nelbo, nelbo, np.arange(n_epochs), np.full(n_epochs, 5))


def test_each_epoch_of_a_short_fit_is_plotted_on_the_given_axes():
    history, ax = history_of(3), Figure().subplots()
    assert plots.plot_history(history, ax=ax) is ax
    np.testing.assert_allclose(ax.lines[0].get_ydata(), history.nelbo)


def test_a_long_history_is_averaged_over_groups_of_epochs():
    history = history_of(1000)
    line = plots.plot_history(history).lines[0]
    assert line.get_label() == "negative ELBO"
    np.testing.assert_allclose(line.get_ydata(), history.nelbo.reshape(200, 5).mean(1))
    np.testing.assert_allclose(line.get_xdata(), np.arange(200) * 5 + 3)
