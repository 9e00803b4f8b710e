"""What priors and likelihoods return: distributions of Pyro, or a refusal that names them."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.distributions as torch_distributions
from support import quick_fit
from torch import nn

from pyrobbb import BayesianNetwork, likelihoods, priors

X, Y = torch.linspace(-1, 1, 24).reshape(8, 3), torch.linspace(0, 1, 8)[:, None]
LEARNABLE = nn.Parameter(torch.ones(()))


def with_param(output):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    return dist.Normal(output, scale)


class LearnedNoise(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, output):
        return dist.Normal(output, self.log_scale.exp())


def refused(error, message, prior=None, likelihood=None, engine="auto"):
    """Check that a fit is refused by one short line that begins with the message."""
    started = []
    with pytest.raises(error, match="^" + re.escape(message)) as found:
        quick_fit(
            BayesianNetwork(nn.Linear(3, 1), prior, likelihood),
            X,
            Y,
            engine=engine,
            callbacks=started.append,
        )
    assert not started
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 300


LIKELIHOODS = {
    "tensor": (lambda o: o, TypeError, "must return a distribution, got Tensor"),
    "drawn": (lambda o: dist.Normal(o, 1.0).sample(), TypeError, "must return a distribution, got"),
    "array": (lambda o: o.detach().numpy(), TypeError, "must return a distribution, got ndarray"),
    "none": (lambda o: None, TypeError, "must return a distribution, got NoneType"),
    "tuple": (lambda o: (o, o), TypeError, "must return a distribution, got tuple"),
    "class returned": (lambda o: dist.Normal, TypeError, "must return a distribution, got Distr"),
    "likelihood returned": (
        lambda o: likelihoods.Gaussian(),
        TypeError,
        "must return a distribution, got Gaussian",
    ),
    "torch": (
        lambda o: torch_distributions.Normal(o, 1.0),
        TypeError,
        "must return a distribution of Pyro, got torch.distributions' Normal",
    ),
    "torch independent": (
        lambda o: torch_distributions.Independent(torch_distributions.Normal(o, 1.0), 1),
        TypeError,
        "must return a distribution of Pyro, got torch.distributions' Independent",
    ),
    "loss": (nn.MSELoss(), TypeError, "must be a callable such as those of pyrobbb.likelihoods, "),
    "loss of three": (nn.GaussianNLLLoss(), TypeError, "must be a callable such as"),
    "loss function": (nn.functional.mse_loss, TypeError, "must take 1 argument(s), (output)"),
    "two arguments": (lambda o, y: dist.Normal(o, y), TypeError, "must take 1 argument(s)"),
    "no argument": (lambda: dist.Normal(0.0, 1.0), TypeError, "must take 1 argument(s)"),
    "distribution": (dist.Normal(torch.zeros(99), 1.0), TypeError, "must be a callable such as"),
    "class": (likelihoods.StudentT, TypeError, "must be a callable such as"),
    "text": ("gausian", ValueError, "must be one of gaussian, heteroscedastic"),
    "scalar": (
        lambda o: dist.Normal(0.0, 1.0),
        ValueError,
        "must return one distribution per row of the output, got batch shape ()",
    ),
    "one for all": (
        lambda o: dist.Normal(o.mean(0), 1.0),
        ValueError,
        "must return one distribution per row of the output, got batch shape (1,) for 2 rows",
    ),
    "pairs of rows": (
        lambda o: dist.Normal(o, o.T.exp()),
        ValueError,
        "must use the output of a row alone",
    ),
    "centred": (
        lambda o: dist.Normal(o - o.mean(0), 1.0),
        ValueError,
        "must use the output of a row alone",
    ),
    "negative scale": (
        lambda o: dist.Normal(o, o - 99),
        ValueError,
        "failed for an output of shape (2, 1): ValueError: Expected parameter scale",
    ),
    "misspelt": (lambda o: dist.Nrmal(o), ValueError, "failed for an output of shape (2, 1): Attr"),
    "half": (lambda o: dist.Normal(o.half(), 1.0), ValueError, "returns a distribution in torch."),
    "detached": (
        lambda o: dist.Normal(o.detach(), 1.0),
        ValueError,
        "returns a distribution without a gradient with respect to the output",
    ),
    "parameter": (
        lambda o: dist.Normal(o, LEARNABLE),
        ValueError,
        "uses a tensor of shape () that requires a gradient, which would not be learned",
    ),
    "module": (LearnedNoise(), ValueError, "uses a tensor of shape () that requires a gradient"),
    "pyro.param": (with_param, ValueError, "uses the Pyro parameter 'scale', which would not be"),
    "random": (
        lambda o: dist.Normal(o, 0.1 + torch.rand(())),
        ValueError,
        "returns other random numbers in each call",
    ),
}


@pytest.mark.parametrize("engine", ["auto", "svi"])
@pytest.mark.parametrize(("likelihood", "error", "message"), LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_a_likelihood_that_cannot_be_used_is_refused(likelihood, error, message, engine):
    refused(error, f"`likelihood` {message}", likelihood=likelihood, engine=engine)


def torch_normal(name, parameter):
    return torch_distributions.Normal(torch.zeros_like(parameter), 1.0)


PRIORS = {
    "tensor": (lambda n, p: p, TypeError, "must return a distribution or None, got Parameter"),
    "tuple": (lambda n, p: (0.0, 1.0), TypeError, "must return a distribution or None, got tuple"),
    "number": (lambda n, p: 1.0, TypeError, "must return a distribution or None, got float"),
    "class returned": (lambda n, p: dist.Normal, TypeError, "must return a distribution or None,"),
    "prior returned": (
        lambda n, p: priors.Normal(),
        TypeError,
        "must return a distribution or None, got Normal for 'weight', a callable: return prior(",
    ),
    "torch": (torch_normal, TypeError, "must return a distribution of Pyro, got torch.distributio"),
    "torch independent": (
        lambda n, p: torch_distributions.Independent(torch_normal(n, p), p.dim()),
        TypeError,
        "must return a distribution of Pyro, got torch.distributions' Independent for 'weight'",
    ),
    "torch by name": (
        priors.ByName({"*": torch_normal}),
        TypeError,
        "must return a distribution of Pyro",
    ),
    "loss": (
        nn.MSELoss(),
        TypeError,
        "must be a callable such as those of pyrobbb.priors, got MSE",
    ),
    "one argument": (lambda n: None, TypeError, "must take 2 argument(s), (name, parameter)"),
    "three arguments": (lambda n, p, q: None, TypeError, "must take 2 argument(s)"),
    "class": (priors.Normal, TypeError, "must be a callable such as"),
    "no event": (
        lambda n, p: dist.Normal(torch.zeros_like(p), 1.0),
        ValueError,
        "must return a distribution with the event shape of 'weight'",
    ),
    "negative scale": (
        lambda n, p: dist.Normal(torch.zeros(50), -torch.ones(50)),
        ValueError,
        "failed for 'weight': ValueError: Expected parameter scale",
    ),
    "misspelt": (lambda n, p: dist.Nrmal(p), ValueError, "failed for 'weight': AttributeError"),
}


@pytest.mark.parametrize(("prior", "error", "message"), PRIORS.values(), ids=PRIORS)
def test_a_prior_that_cannot_be_used_is_refused(prior, error, message):
    refused(error, f"`prior` {message}", prior)


@pytest.mark.parametrize(
    "likelihood",
    [
        lambda o: dist.Normal(o.double(), 1.0),
        lambda o: dist.LogNormal(o, 1.0).to_event(1),
        lambda o: dist.MultivariateNormal(o, torch.eye(1)),
        lambda o: dist.Normal(o, pyro.sample("s", dist.LogNormal(0.0, 1.0))),
        lambda o: dist.Normal(o, LEARNABLE.detach()),
        lambda o, scale=1.0: dist.Normal(o, scale),
    ],
)
def test_a_likelihood_of_ones_own_is_fitted(likelihood):
    posterior = quick_fit(BayesianNetwork(nn.Linear(3, 1), likelihood=likelihood), X, Y + 0.1)
    assert posterior.predict(X, 3, seed=0).log_prob(Y + 0.1).isfinite().all()
