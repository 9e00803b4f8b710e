"""The closed forms of nll and its gradients, against torch's distributions and autograd."""

import pytest
import torch
from torch.testing import assert_close

from pyrobbb import likelihoods
from pyrobbb.elbo.output_gradients import closed_form

N, K, N_DRAWS = 7, 3, 4
WEIGHT = 0.7  # not representable in float32

CASES = {
    "fixed noise": (likelihoods.Gaussian(0.3), None),
    "fixed noise per column": (likelihoods.Gaussian((0.3, 0.5, 2.0)), None),
    "learned noise": (likelihoods.Gaussian(), ()),
    "learned noise per column": (likelihoods.Gaussian(noise_median=(0.5, 1.0, 2.0)), (K,)),
    "classes": (likelihoods.Categorical(), None),
    "binary": (likelihoods.Bernoulli(), None),
}


def problem(likelihood, site, lead):
    output = torch.randn((*lead, N, K), dtype=torch.float64, requires_grad=True)
    latents = {}
    if site is not None:
        latents["noise_scale"] = torch.randn((*lead, *site), dtype=torch.float64).requires_grad_()
    if isinstance(likelihood, likelihoods.Categorical):
        return output, latents, torch.randint(K, (*lead, N))
    if isinstance(likelihood, likelihoods.Bernoulli):
        return output, latents, torch.randint(2, (*lead, N, K)).double()
    return output, latents, torch.randn((*lead, N, K), dtype=torch.float64)


def by_autograd(likelihood, output, latents, y, row_weight):
    aligned = {
        name: u.exp().reshape(
            (*u.shape[: output.dim() - 2], 1, *(u.shape[output.dim() - 2 :] or (1,)))
        )
        for name, u in latents.items()
    }
    log_prob = likelihood.given(output, aligned).log_prob(y)
    if log_prob.dim() == output.dim():
        log_prob = log_prob.sum(-1)
    nll = -WEIGHT * (log_prob * row_weight).sum(-1)
    d_output, *d_latents = torch.autograd.grad(nll.sum(), [output, *latents.values()])
    return nll, d_output, dict(zip(latents, d_latents, strict=True))


@pytest.mark.parametrize(("likelihood", "site"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("lead", [(), (N_DRAWS,)], ids=["one draw", "many draws"])
@pytest.mark.parametrize("weighted", [False, True])
def test_closed_forms_equal_autograd(likelihood, site, lead, weighted):
    torch.manual_seed(0)
    output, latents, y = problem(likelihood, site, lead)
    row_weight = torch.rand((*lead, N), dtype=torch.float64) if weighted else None
    ones = torch.ones(N, dtype=torch.float64)
    expected = by_autograd(
        likelihood, output, latents, y, ones if row_weight is None else row_weight
    )
    closed = closed_form(likelihood, output, latents, y, WEIGHT, row_weight)
    assert_close(closed, expected, rtol=1e-12, atol=1e-12)


def test_other_likelihoods_and_shapes_have_no_closed_form():
    output, y = torch.randn(N, K), torch.randn(N, K)
    assert closed_form(likelihoods.Poisson(), output, {}, y, 1.0, None) is None
    assert closed_form(likelihoods.Gaussian(1.0), output, {}, y[:, :1], 1.0, None) is None
    assert closed_form(likelihoods.Categorical(), output, {}, y, 1.0, None) is None


def test_extreme_logits_lose_no_precision():
    output = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    nll, d_output, _ = closed_form(
        likelihoods.Categorical(), output, {}, torch.tensor([0, 0]), 1.0, None
    )
    assert_close(nll, torch.tensor(200.0))
    assert_close(d_output, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))
