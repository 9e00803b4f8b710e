"""Joining of steps, and the errors that name what is not finite."""

import numpy as np
import pytest
import torch
from engine_fits import network, quick_fit

from pyrobbb import NonFiniteLossError, likelihoods, priors
from pyrobbb.engines.base import Steps


def test_only_steps_on_the_same_data_can_be_joined():
    n_rows, ones = np.array([2]), np.ones(1)
    x = torch.zeros(2, 1)
    steps = Steps(x, x, None, n_rows, 2, ones, ones, ones)
    joined = steps.then(steps)
    assert len(joined) == 2
    assert joined.data_weight.tolist() == [1.0, 1.0]
    other = Steps(x.clone(), x, None, n_rows, 2, ones, ones, ones)
    with pytest.raises(ValueError, match="Only steps on the same data can be joined"):
        steps.then(other)


@pytest.mark.parametrize("prior", [priors.Laplace(), priors.StudentT(), priors.Normal()], ids=str)
def test_weights_that_are_not_finite_are_named_for_every_prior(prior):
    net = network(prior=prior, likelihood=likelihoods.Gaussian(1.0))
    with pytest.raises(NonFiniteLossError, match=r"at step \d+: .* holds NaN or infinite values"):
        quick_fit(net, lr=1e300)
