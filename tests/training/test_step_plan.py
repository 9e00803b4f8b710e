"""The steps of a fit: batches, KL weights, learning rates and clipping."""

import numpy as np
import pytest
import torch
from ragged_fits import RecordedSGD, quick_fit
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, likelihoods, mlp, priors


def nearly_noiseless_network():
    net = mlp(3, [4], 1, seed=0).double()
    return BayesianNetwork(net, priors.FanInNormal(), likelihoods.Gaussian(1.0))


def gradient_of_loc(**kwargs):
    """Return the gradient of the first step with respect to loc, almost without noise."""
    net = nearly_noiseless_network()
    guide = MeanFieldGuide(net, init_scale=1e-9)
    quick_fit(net, guide=guide, epochs=1, optimizer=RecordedSGD, lr=1e-12, **kwargs)
    return RecordedSGD.seen[0][1][0]


def test_kl_weight_scales_the_prior_and_not_the_likelihood():
    none = gradient_of_loc(batch_size=23, kl_weight=lambda i, m: 0.0)
    full = gradient_of_loc(batch_size=23)
    double = gradient_of_loc(batch_size=23, kl_weight=lambda i, m: 2.0)
    net = mlp(3, [4], 1, seed=0).double()
    flat = torch.cat([p.flatten() for p in net.parameters()])
    gain = torch.cat(
        [p.new_full((p.numel(),), 1 / (p.shape[1] if p.dim() > 1 else 1)) for p in net.parameters()]
    )
    # Almost without noise, eps sigmoid(rho) (...) is 0 and d_mu is -dlogP(w)/dw: w / scale^2.
    torch.testing.assert_close(full - none, flat / gain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(double - none, 2 * flat / gain, rtol=1e-6, atol=1e-6)


def gradients_of_an_epoch(**kwargs):
    """Return the gradients with respect to loc of an epoch in batches of 7, 7, 7 and 2 rows."""
    gradient_of_loc(batch_size=7, **kwargs)
    steps = [gradients[0] for _, gradients in RecordedSGD.seen]
    assert len(steps) == 4
    return torch.stack(steps)


def test_gradients_of_an_epoch_sum_to_that_of_the_likelihood():
    """A step is N / 7 times the gradient of its rows, also in a smaller last batch."""
    whole = gradient_of_loc(batch_size=23, kl_weight=lambda i, m: 0.0)
    steps = gradients_of_an_epoch(kl_weight=lambda i, m: 0.0)
    torch.testing.assert_close(steps.sum(0) * 7 / 23, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kl_weight", ["uniform", "blundell", lambda i, m: i / 10])
def test_batches_of_an_epoch_count_the_kl_divergence_once(kl_weight):
    """For any weights that sum to 1, with a smaller last batch."""
    full = gradient_of_loc(batch_size=23) - gradient_of_loc(
        batch_size=23, kl_weight=lambda i, m: 0.0
    )
    none = gradients_of_an_epoch(kl_weight=lambda i, m: 0.0)
    pulls = (gradients_of_an_epoch(kl_weight=kl_weight) - none) * 7 / 23
    torch.testing.assert_close(pulls.sum(0), full, rtol=1e-6, atol=1e-5)
    shares = pulls.norm(dim=1) / full.norm()
    expected = {"uniform": [7 / 23, 7 / 23, 7 / 23, 2 / 23], "blundell": [8, 4, 2, 1]}.get(
        kl_weight, [1, 2, 3, 4]
    )
    expected = torch.tensor(expected).double()
    torch.testing.assert_close(shares, expected / expected.sum(), rtol=1e-4, atol=1e-5)


def test_each_epoch_visits_all_rows_in_a_new_order():
    rows = []

    class Recording(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

        def forward(self, x):
            if self.training and torch.is_grad_enabled():  # not in a trial run
                rows.extend(x[:, 0].tolist())
            return self.net(x)

    x = np.arange(23, dtype=np.float32)[:, None]
    posterior = quick_fit(BayesianNetwork(Recording()), x, x, epochs=2)
    first, second = rows[:23], rows[23:46]
    assert sorted(first) == sorted(second) == x[:, 0].tolist()
    assert first != second
    np.testing.assert_array_equal(posterior.history.n_rows, [7, 7, 7, 2] * 2)


def test_kl_divergence_in_the_history_is_not_weighted():
    light = quick_fit(epochs=1, batch_size=23, kl_weight=lambda i, m: 1e-6).history
    full = quick_fit(epochs=1, batch_size=23).history
    np.testing.assert_allclose(light.kl, full.kl, rtol=1e-5)
    np.testing.assert_allclose(light.nll, full.nll, rtol=1e-5)


def test_learning_rate_follows_its_schedule():
    quick_fit(optimizer=RecordedSGD, lr=1e-9, schedule=lambda part: 1 + part, epochs=2)
    rates = [lr for lr, _ in RecordedSGD.seen]
    np.testing.assert_allclose(rates, 1e-9 * (1 + np.arange(8) / 8))


@pytest.mark.parametrize(
    ("schedule", "first", "highest", "last"),
    [("constant", 1, 1, 1), ("cosine", 1, 1, 0), ("one_cycle", 0.04, 1, 0)],
)
def test_named_schedules_have_the_documented_first_highest_and_last_rate(
    schedule, first, highest, last
):
    quick_fit(optimizer=RecordedSGD, lr=1e-9, schedule=schedule, epochs=100, batch_size=23)
    rates = np.array([lr for lr, _ in RecordedSGD.seen]) / 1e-9
    assert rates[0] == pytest.approx(first)
    assert rates.max() == pytest.approx(highest, abs=1e-3)
    assert rates[-1] == pytest.approx(last, abs=1e-3)


def test_kl_warmup_rises_linearly_to_the_full_weight():
    def pull(epoch):  # of the prior on loc, in the full-batch step of an epoch
        warm, cold = (RecordedSGD.seen, none)
        return float((warm[epoch][1][0] - cold[epoch][1][0]).norm())

    def run(**kwargs):
        net = nearly_noiseless_network()
        guide = MeanFieldGuide(net, init_scale=1e-9)
        quick_fit(
            net, guide=guide, epochs=6, batch_size=23, optimizer=RecordedSGD, lr=1e-12, **kwargs
        )
        return RecordedSGD.seen

    none = run(kl_weight=lambda i, m: 0.0)
    run(kl_warmup=0.5)
    pulls = np.array([pull(epoch) for epoch in range(6)])
    np.testing.assert_allclose(pulls / pulls[-1], [0, 1 / 3, 2 / 3, 1, 1, 1], rtol=1e-5)


def test_norm_of_the_whole_gradient_is_clipped():
    quick_fit(optimizer=RecordedSGD, lr=1e-9, clip_norm=0.5)
    for _, gradients in RecordedSGD.seen:
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert float(norm) == pytest.approx(0.5, rel=1e-3)
