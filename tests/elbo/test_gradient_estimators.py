"""Draws per example: distribution of the outputs, unbiased gradients, and their variance."""

import pyro
import pytest
import torch
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, likelihoods, mlp, priors
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.elbo.gradient_estimators import PerExampleSampling

N_DRAWS = 2000


class Convolutions(nn.Module):
    """Strided, padded and grouped convolutions, with and without bias, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.second = nn.Conv2d(4, 4, 2, groups=2, dilation=2, bias=False)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        hidden = torch.relu(self.second(torch.tanh(self.first(x))))
        return self.last(hidden.flatten(1))


def fixed_rows(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


CASES = {
    "linear": (mlp(3, [6], 1, seed=0), fixed_rows(12, 3), likelihoods.Gaussian()),
    "point bias": (mlp(3, [6], 1, seed=0), fixed_rows(12, 3), likelihoods.Gaussian(0.5)),
    "linear over time": (mlp(3, [4], 1, seed=0), fixed_rows(5, 4, 3), likelihoods.Gaussian(0.5)),
    "conv2d": (Convolutions(), fixed_rows(12, 2, 5, 5), likelihoods.Gaussian(0.5)),
    "conv1d": (
        nn.Sequential(nn.Conv1d(2, 3, 3, padding="same"), nn.ReLU(), nn.Conv1d(3, 1, 2)),
        fixed_rows(12, 2, 4),
        likelihoods.Gaussian(0.5),
    ),
    "conv3d": (nn.Conv3d(1, 2, 2), fixed_rows(8, 1, 2, 3, 2), likelihoods.Gaussian(0.5)),
}


class Candidate:
    def __init__(self, case):
        net, self.x, likelihood = CASES[case]
        prior = priors.Normal(1.0)
        if case == "point bias":
            prior = priors.ByName({"*.bias": None}, default=prior)
        self.network = BayesianNetwork(net.double(), prior, likelihood)
        self.guide = MeanFieldGuide(self.network, init_scale=0.4)
        self.y = torch.sin(net(self.x).detach() * 7)

    def gradients(self, estimator, closed_form_kl=True):
        loss = FusedLoss(
            self.network, self.guide, closed_form_kl=closed_form_kl, estimator=estimator
        )
        points = tuple(p.detach() for _, p in self.network.point_parameters())
        rows = []
        pyro.set_rng_seed(3)
        with torch.no_grad():
            for _ in range(N_DRAWS):
                step = loss(
                    self.guide.loc,
                    self.guide.rho,
                    points,
                    loss.noise(),
                    self.x,
                    self.y,
                    data_weight=2.0,
                    kl_weight=0.5,
                )
                gradients = [step.d_loc, step.d_rho, *(d.flatten() for d in step.d_points)]
                rows.append(torch.cat([step.nll[None], step.kl[None], *gradients]))
        return torch.stack(rows)

    def outputs(self, estimator):
        """Return the output of each row under many draws of `PerExampleSampling`."""
        loc, scale = self.guide.split(self.guide.loc), self.guide.split(self.guide.scale)
        values = {name: loc[name] for name, _ in self.network.bayesian_parameters()}
        parameters = dict(self.network.net.named_parameters())
        originals = {name: parameters[name].data for name in values}
        try:
            for name, value in values.items():
                parameters[name].data = value.detach()
            scales = {id(parameters[name]): scale[name] for name in values}
            with torch.no_grad(), PerExampleSampling(estimator, scales):
                return torch.stack([self.network.net(self.x) for _ in range(N_DRAWS)])
        finally:
            for name, value in originals.items():
                parameters[name].data = value

    def outputs_by_one_draw(self):
        with torch.no_grad():
            draws = [self.guide() for _ in range(N_DRAWS)]
            stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
            return self.network.output(stacked, self.x)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", CASES)
def test_the_output_of_each_row_has_the_mean_and_variance_of_the_posterior(case, estimator):
    pyro.set_rng_seed(1)
    candidate = Candidate(case)
    ours, expected = candidate.outputs(estimator), candidate.outputs_by_one_draw()
    gap = ours.mean(0) - expected.mean(0)
    standard_error = ((ours.var(0) + expected.var(0)) / N_DRAWS).sqrt()
    assert (gap.abs() < 5 * standard_error).all()
    # The relative error of a variance is sqrt((kurtosis - 1) / n); these tails are near-normal.
    assert ((ours.var(0) / expected.var(0)).log().abs() < 0.25).all()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_have_the_same_expectation(case, estimator):
    candidate = Candidate(case)
    ours, expected = candidate.gradients(estimator), candidate.gradients("reparam")
    gap = ours.mean(0) - expected.mean(0)
    standard_error = ((ours.var(0) + expected.var(0)) / N_DRAWS).sqrt()
    assert (gap.abs() < 5 * standard_error + 1e-12).all()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", ["linear", "conv2d"])
def test_gradients_are_less_noisy(case, estimator):
    candidate = Candidate(case)
    noise = {e: candidate.gradients(e)[:, 2:].var(0).sum() for e in (estimator, "reparam")}
    assert noise[estimator] < 0.9 * noise["reparam"]


def test_gradients_with_a_sampled_kl_divergence_are_unbiased():
    candidate = Candidate("linear")
    ours = candidate.gradients("local", closed_form_kl=False)
    expected = candidate.gradients("local")
    gap = ours.mean(0) - expected.mean(0)
    standard_error = ((ours.var(0) + expected.var(0)) / N_DRAWS).sqrt()
    assert (gap.abs() < 5 * standard_error + 1e-12).all()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", CASES)
def test_at_a_vanishing_scale_nll_and_gradient_in_loc_are_those_of_a_shared_draw(case, estimator):
    candidate = Candidate(case)
    network, guide = candidate.network, candidate.guide
    points = tuple(p.detach() for _, p in network.point_parameters())
    noise, rho = torch.zeros_like(guide.loc), torch.full_like(guide.rho, -30.0)
    expected, ours = (
        FusedLoss(network, guide, estimator=e)(
            guide.loc.detach(), rho, points, noise, candidate.x, candidate.y
        )
        for e in ("reparam", estimator)
    )
    torch.testing.assert_close(ours.nll, expected.nll, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.d_loc, expected.d_loc, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.d_points, expected.d_points, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_gradients_at_an_input_of_zeros_are_finite(estimator):
    network = BayesianNetwork(nn.Linear(3, 1, bias=False), priors.Normal(1.0))
    posterior = fit(
        network, torch.zeros(5, 3), torch.ones(5, 1), epochs=3, estimator=estimator, progress=False
    )
    assert posterior.guide.loc.isfinite().all()
    assert posterior.guide.rho.isfinite().all()


@pytest.mark.parametrize("n_particles", [1, 2])
@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_fits_use_the_estimators_and_are_reproducible(estimator, n_particles):
    x = fixed_rows(20, 3)
    network = BayesianNetwork(mlp(3, [4], 1, seed=0).double())
    fits = [
        fit(
            network,
            x,
            x.sum(1, keepdim=True),
            epochs=4,
            batch_size=8,
            estimator=estimator,
            n_particles=n_particles,
            seed=0,
            progress=False,
        )
        for _ in range(2)
    ]
    assert fits[0].settings["engine"] == "fused"
    assert torch.equal(fits[0].guide.loc, fits[1].guide.loc)
    plain = fit(network, x, x.sum(1, keepdim=True), epochs=4, batch_size=8, seed=0, progress=False)
    assert not torch.equal(fits[0].guide.loc, plain.guide.loc)


def test_other_layers_raise_with_the_name_of_the_parameter():
    network = BayesianNetwork(nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 1)))
    x, y = torch.zeros((4, 2), dtype=torch.long), torch.zeros(4, 1)
    with pytest.raises(
        ValueError, match=r"'0\.weight' is a parameter of Embedding.*estimator='reparam'"
    ):
        fit(network, x, y, epochs=1, estimator="local", progress=False)


def test_other_layers_may_have_point_parameters():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 1))
    network = BayesianNetwork(net, priors.ByName({"0.*": None}, default=priors.Normal(1.0)))
    x, y = torch.zeros((4, 2), dtype=torch.long), torch.zeros(4, 1)
    posterior = fit(network, x, y, epochs=1, estimator="local", progress=False)
    assert posterior.settings["engine"] == "fused"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "dropout"}, "`estimator` must be one of reparam, local, flipout, got"),
        ({"estimator": "local", "engine": "svi"}, "`estimator` 'local' or 'flipout' needs engine"),
        (
            {"estimator": "local", "guide": "auto_normal"},
            "`estimator` 'local': the guide must be a",
        ),
    ],
)
def test_incompatible_options_raise(change, message):
    x = fixed_rows(5, 3)
    network = BayesianNetwork(mlp(3, [4], 1).double())
    with pytest.raises(ValueError, match=message):
        fit(network, x, x[:, :1], epochs=1, progress=False, **change)
