"""Plots of the training: the values of lines, for short and for long fits."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyrobbb import plots
from pyrobbb.fitted.history import History


def history_of(n_epochs):
    nll, kl = np.random.default_rng(0).normal(size=(2, n_epochs))
    return History(nll + kl, nll, kl, np.arange(n_epochs), np.full(n_epochs, 5))


def test_each_epoch_of_a_short_fit_is_plotted_on_the_given_axes():
    history, ax = history_of(3), Figure().subplots()
    assert plots.plot_history(history, ax=ax) is ax
    values = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(values["negative ELBO"], history.nelbo)
    np.testing.assert_allclose(values["negative log-likelihood"], history.nll)
    np.testing.assert_allclose(values["KL divergence"], history.kl)


def test_a_long_history_is_averaged_over_groups_of_epochs():
    history = history_of(1000)
    line = plots.plot_history(history).lines[0]
    assert line.get_label() == "negative ELBO"
    np.testing.assert_allclose(line.get_ydata(), history.nelbo.reshape(200, 5).mean(1))
    np.testing.assert_allclose(line.get_xdata(), np.arange(200) * 5 + 3)


def test_a_history_without_epochs_is_refused():
    with pytest.raises(ValueError, match=r"`history` must have at least one epoch, got none: a"):
        plots.plot_history(history_of(0))
