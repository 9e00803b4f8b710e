"""The start of a fit: its guide and its parameters."""

import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from pyro.nn import PyroModule
from ragged_fits import X, network, quick_fit
from torch import nn

from pyrobbb import likelihoods


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_named_guides_lower_the_loss(guide):
    history = quick_fit(guide=guide, epochs=100, lr=0.03).history.per_epoch()
    assert history.nelbo[-10:].mean() < history.nelbo[:10].mean() - 5


def test_pyro_autoguide_and_custom_guide_lower_the_loss():
    net = network(likelihood=likelihoods.Gaussian(0.5))
    # A parameter of another program must not be used or changed.
    pyro.get_param_store()["AutoLowRankMultivariateNormal.loc"] = torch.zeros(2)
    posterior = quick_fit(net, guide=AutoLowRankMultivariateNormal(net), epochs=50, lr=0.03)
    assert posterior.history.nelbo[-5:].mean() < posterior.history.nelbo[:5].mean()
    assert posterior.predict(X, n_draws=4).mean.shape == (23, 1)
    assert list(pyro.get_param_store()) == ["AutoLowRankMultivariateNormal.loc"]

    class PointMass(PyroModule):
        def __init__(self):
            super().__init__()
            self.points = {name: name.replace(".", "_") for name, _ in net.bayesian_parameters()}
            for name, parameter in net.bayesian_parameters():
                setattr(self, self.points[name], nn.Parameter(parameter.detach().clone()))

        def forward(self, x, y=None, n_data=None):
            for name, attribute in self.points.items():
                value = getattr(self, attribute)
                pyro.sample(name, pyro.distributions.Delta(value, event_dim=value.dim()))

    custom = quick_fit(net, guide=PointMass(), epochs=50, lr=0.03)
    nll = custom.history.per_epoch().nll
    assert nll[-5:].mean() < nll[:5].mean() / 2
    assert (custom.predict(X, n_draws=4).epistemic_sd == 0).all()


def test_guide_without_parameters_to_fit_is_refused():
    def by_pyro_param(x, y=None, n_data=None):
        pyro.param("loc", torch.zeros(3))

    with pytest.raises(ValueError, match=r"`guide` has no parameters to fit: make it a Pyro"):
        quick_fit(guide=by_pyro_param)

    class Silent(nn.Linear):
        def forward(self, x, y=None, n_data=None):
            for name, parameter in network().bayesian_parameters():
                pyro.sample(name, pyro.distributions.Delta(parameter, event_dim=parameter.dim()))
            pyro.sample("noise_scale", pyro.distributions.LogNormal(self.bias[0], 1.0))

    with pytest.raises(ValueError, match="`guide` registers no parameters with Pyro"):
        quick_fit(guide=Silent(1, 1))
