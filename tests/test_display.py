"""What results show in a session: fewer than 30 lines, and escaped HTML."""

import numpy as np
import pytest
from support import X, Y, quick_fit, small_network

from pyrobbb import BayesianNetwork, crosscheck, likelihoods, mlp, priors

POSTERIOR = quick_fit(epochs=60, restarts=2)
RESULTS = {
    "network": (lambda: small_network(), "0.weight"),
    "deep network": (lambda: BayesianNetwork(mlp(2, [2] * 30, 1)), "and 43 more rows"),
    "posterior": (lambda: POSTERIOR, "2 chains"),
    "chain": (lambda: POSTERIOR.chains[0], "MeanFieldGuide"),
    "history": (lambda: POSTERIOR.chains[0].history, "60"),
    "prediction": (lambda: POSTERIOR.predict(np.tile(X, (50, 1)), seed=0), "more rows"),
    "diagnosis": (lambda: POSTERIOR.diagnose(X, Y, n_draws=100, seed=0), "PSIS-LOO"),
    "cross-check": (
        lambda: crosscheck(small_network(), X, Y, n_draws=4, n_steps=2, seed=0),
        "loss",
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_in_few_lines(name):
    make, words = RESULTS[name]
    result = make()
    assert words in repr(result)
    assert repr(result).count("\n") < 30
    assert result._repr_html_().startswith("<div><strong>")
    assert result._repr_html_().count("<tr>") <= 22


def test_names_are_escaped_in_html():
    class Named(priors.Normal):
        def __repr__(self):
            return "<b>prior</b>"

    network = BayesianNetwork(mlp(1, [2], 1), Named(1.0), likelihoods.Gaussian())
    assert "&lt;b&gt;prior" in network._repr_html_()
    assert "<b>" not in network._repr_html_()
