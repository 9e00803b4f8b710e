"""Shapes, labels and counts of any size: valid ones are accepted, others refused in one line."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import posterior_of

from pyrobbb import BayesianNetwork, MeanFieldGuide, likelihoods, mlp
from pyrobbb.fitted.history import History

sizes = st.integers(1, 6)
quick = settings(deadline=None, max_examples=40)


def network_of(n_in, hidden, n_out, likelihood):
    return BayesianNetwork(mlp(n_in, hidden, n_out, seed=0), None, likelihood)


@quick
@given(n=sizes, n_in=sizes, n_out=sizes, hidden=st.lists(sizes, max_size=3), n_draws=sizes)
def test_matching_shapes_are_accepted_from_the_model_to_the_prediction(
    n, n_in, n_out, hidden, n_draws
):
    network = network_of(n_in, hidden, n_out, likelihoods.Gaussian()).eval()
    x, y = np.zeros((n, n_in)), np.ones((n, n_out))
    rows, targets = network.prepare(x, y)
    assert network(rows, targets).shape == network(rows).shape == (n, n_out)
    guide = MeanFieldGuide(network)
    assert guide.loc.numel() == sum(p.numel() for p in network.net.parameters()) + 1
    history = History(*[np.zeros(1)] * 3, np.zeros(1, int), np.ones(1, int))
    prediction = posterior_of(network, guide, history, rows[:1]).predict(x, n_draws=n_draws, seed=0)
    assert prediction.mean.shape == prediction.interval(0.5)[1].shape == (n, n_out)
    assert prediction.log_prob(y).shape == (n,)
    assert prediction.sample(seed=0).shape == (n_draws, n, n_out)
    assert np.isfinite(prediction.sd).all()


@quick
@given(n=sizes, n_out=sizes, shape=st.lists(sizes, min_size=1, max_size=3).map(tuple))
def test_any_other_shape_of_y_is_refused(n, n_out, shape):
    assume(shape != (n, n_out))
    network = network_of(2, [3], n_out, likelihoods.Gaussian(0.5))
    with pytest.raises(ValueError, match=r"^`(y|x)` .*(shape|same number of rows)") as caught:
        network.prepare(np.zeros((n, 2)), np.zeros(shape))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="`y` has shape"):  # as in a training loop by the user
        network(torch.zeros(n, 2), torch.zeros(shape))


@quick
@given(
    labels=st.lists(st.integers(-3, 9), min_size=1, max_size=8),
    n_classes=st.integers(2, 6),
    dtype=st.sampled_from([np.int64, np.int32, np.float64]),
)
def test_labels_are_accepted_if_and_only_if_they_name_classes(labels, n_classes, dtype):
    network = network_of(2, [3], n_classes, likelihoods.Categorical())
    x, y = np.zeros((len(labels), 2)), np.array(labels, dtype=dtype)
    if all(0 <= label < n_classes for label in labels):
        assert network.prepare(x, y)[1].tolist() == labels
    else:
        with pytest.raises(ValueError, match=rf"outside .* support \(0 .. {n_classes - 1}\)"):
            network.prepare(x, y)


@quick
@given(counts=st.lists(st.floats(-3, 9), min_size=1, max_size=8))
def test_counts_are_accepted_if_and_only_if_they_are_counts(counts):
    network = network_of(2, [3], 1, likelihoods.Poisson())
    x, y = np.zeros((len(counts), 2)), np.array(counts)[:, None]
    if all(count >= 0 and count == int(count) for count in counts):
        network.prepare(x, y)
    else:
        with pytest.raises(ValueError, match="`y` holds values outside the likelihood's support"):
            network.prepare(x, y)
