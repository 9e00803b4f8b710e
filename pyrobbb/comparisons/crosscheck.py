"""Two guides, four objectives, gradients by hand: one answer.

At the same start and the same noise, the loss and the gradients with respect to loc and rho are
computed along independent ways, in double precision; then the guides are fitted side by side, and
their parameters compared after each step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .. import likelihoods, priors, reference
from .._core.arrays import ArrayLike, check_count, check_positive
from .._core.random_state import as_seed, seeded
from ..elbo.fused_loss import CannotFuseError, FusedLoss
from ..likelihoods import base_of
from ..model.guides import MeanFieldGuide, auto_normal
from ..model.mlp import mlp_spec
from ..model.network import BayesianNetwork

RELATIVE_TOLERANCE = 1e-8
"""Between ways that compute the same number in double precision."""
STANDARD_ERRORS = 5.0
"""Between the sampled and the closed-form KL divergence, which agree in the mean. Five, because the
worst of many gradients is compared."""

AUTO, HAND = "AutoNormal, Trace_ELBO", "MeanFieldGuide, Trace_ELBO"
CLOSED, FUSED = "MeanFieldGuide, TraceMeanField_ELBO", "MeanFieldGuide, FusedELBO"
NUMPY = "NumPy, gradients by hand"


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes
    ----------
    quantity, way : str
        What was computed, and how.
    value : float
        The loss, or the norm of a gradient or of the parameters.
    difference, allowed : float
        Largest absolute difference from the first way, and the most it may be.
    """

    quantity: str
    way: str
    value: float
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the difference is within what is allowed; NaN never is."""
        return bool(self.difference <= self.allowed)


@dataclass(frozen=True)
class CrossCheck:
    """What `crosscheck` found.

    Attributes
    ----------
    checks : tuple of Check
    notes : tuple of str
        What could not be compared, and why.
    """

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all ways agree."""
        return all(check.ok for check in self.checks)

    @property
    def table(self) -> str:
        """The comparisons as text, a line each."""
        head = f"{'quantity':<29} {'way':<36} {'value':>14} {'difference':>11} {'allowed':>9}"
        lines = [head, "-" * (len(head) + 8)]
        lines += [
            f"{c.quantity:<29} {c.way:<36} {c.value:>14.6f} {c.difference:>11.1e} "
            f"{c.allowed:>9.1e}  {'ok' if c.ok else 'DIFFERS'}"
            for c in self.checks
        ]
        return "\n".join([*lines, *self.notes])

    def __str__(self) -> str:
        failed = sum(not check.ok for check in self.checks)
        verdict = (
            f"All {len(self.checks)} comparisons agree."
            if self.ok
            else f"{failed} of {len(self.checks)} comparisons DIFFER."
        )
        return f"{self.table}\n{verdict}"


def crosscheck(
    network: BayesianNetwork,
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_steps: int = 20,
    lr: float = 0.01,
    n_draws: int = 200,
    seed: int = 0,
) -> CrossCheck:
    """Compute one fit in several independent ways and compare them.

    (a) Pyro's `AutoNormal` under `Trace_ELBO`; (b) `MeanFieldGuide` under `Trace_ELBO`; (c)
    `MeanFieldGuide` under `TraceMeanField_ELBO`, which agrees in the mean over draws; (d)
    `FusedELBO`, by which `fit` takes its steps; (e) for a plain `mlp`, `pyrobbb.reference`: NumPy
    with gradients derived by hand. Then (a) and (b) are fitted by Pyro's SVI under the same noise,
    and their parameters compared at every step.

    Parameters
    ----------
    network : BayesianNetwork
        Run in evaluation mode and double precision, on a copy.
    x, y : array-like of shape (n, ...)
    n_steps : int
        Steps of the short fit.
    lr : float
        Learning rate of the short fit.
    n_draws : int
        Draws over which (b) and (c) are compared.
    seed : int

    Returns
    -------
    CrossCheck
        ``.ok``, ``.table``; print it.
    """
    for argument, count in (("n_steps", n_steps), ("n_draws", n_draws)):
        check_count(argument, count, least=2)
    check_positive("lr", lr)
    network = copy.deepcopy(network).double().eval()
    x, y = network.prepare(x, y)
    with seeded(as_seed(seed)), poutine.block():
        hand, auto = MeanFieldGuide(network, x), auto_normal(network)
        with torch.no_grad():
            auto(x)
        noises = [_noise(hand) for _ in range(max(n_steps, n_draws))]

        a = _loss_and_gradients(network, auto, x, y, noises[0])
        ways = {HAND: _loss_and_gradients(network, hand, x, y, noises[0])}
        notes = []
        try:
            ways[FUSED] = _fused(network, hand, x, y, noises[0])
        except CannotFuseError as reason:
            notes.append(f"{FUSED}: left out, {reason}.")
        try:
            ways[NUMPY] = _by_hand(network, hand, x, y, noises[0])
        except _NotCoveredError as reason:
            notes.append(f"{NUMPY}: left out, {reason}.")
        checks = []
        for k, quantity in enumerate(("loss", "gradient of loc", "gradient of rho")):
            checks.append(_compare(quantity, AUTO, a[k], a[k]))
            checks += [_compare(quantity, way, found[k], a[k]) for way, found in ways.items()]
        checks += _compare_in_the_mean(network, hand, x, y, noises[:n_draws])
        checks += _fit_side_by_side(network, auto, hand, x, y, noises[:n_steps], lr)
    return CrossCheck(tuple(checks), tuple(notes))


class _FixedNoise(Messenger):
    """Makes a guide use given standard normal noise, whatever way it draws its normal sites."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"].removesuffix("_unconstrained")
        if msg["value"] is not None or name not in self._noise:
            return
        base = base_of(msg["fn"])
        transforms = []
        if isinstance(base, torch.distributions.TransformedDistribution):
            base, transforms = base_of(base.base_dist), base.transforms
        if isinstance(base, torch.distributions.Normal):
            value = base.loc + base.scale * self._noise[name]
            for transform in transforms:
                value = transform(value)
            msg["value"], msg["done"] = value, True


def _noise(guide: MeanFieldGuide) -> dict[str, Tensor]:
    return guide.split(torch.randn_like(guide.loc))


def _parameters(
    guide: MeanFieldGuide | AutoNormal, order: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    if isinstance(guide, AutoNormal):
        return (
            [guide.locs.get_parameter(f"{name}_unconstrained") for name in order],
            [guide.scales.get_parameter(f"{name}_unconstrained") for name in order],
        )
    return [guide.loc], [guide.rho]


def _flat(tensors: list[Tensor]) -> np.ndarray:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu().numpy()


def _loss_and_gradients(
    network: BayesianNetwork,
    guide: MeanFieldGuide | AutoNormal,
    x: Tensor,
    y: Tensor,
    noise: Mapping[str, Tensor],
    elbo: ELBO | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with _FixedNoise(noise):
        loss = (elbo or Trace_ELBO()).differentiable_loss(network, guide, x, y)
    loss.backward()
    locs, rhos = _parameters(guide, noise)
    gradients = [_flat([p.grad for p in some if p.grad is not None]) for some in (locs, rhos)]
    guide.zero_grad()  # or SVI would step on them as well
    return np.array([loss.item()]), gradients[0], gradients[1]


def _fused(
    network: BayesianNetwork,
    guide: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noise: Mapping[str, Tensor],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    loss = FusedLoss(network, guide)
    points = tuple(point.detach() for _, point in network.point_parameters())
    flat = torch.cat([value.flatten() for value in noise.values()])
    with torch.no_grad():
        step = loss(guide.loc, guide.rho, points, flat, x, y)
    return np.array([(step.nll + step.kl).item()]), _flat([step.d_loc]), _flat([step.d_rho])


def _compare(quantity: str, way: str, found: np.ndarray, first: np.ndarray) -> Check:
    size = float(np.abs(first).max())
    difference = float(np.abs(found - first).max()) if found.shape == first.shape else np.inf
    norm = float(found[0]) if found.size == 1 else float(np.linalg.norm(found))
    return Check(quantity, way, norm, difference, RELATIVE_TOLERANCE * max(size, 1.0))


def _compare_in_the_mean(
    network: BayesianNetwork,
    guide: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noises: list[dict[str, Tensor]],
) -> list[Check]:
    """Compare sampled with closed-form KL divergences: equal within their Monte Carlo error."""
    sampled, closed = (
        [_loss_and_gradients(network, guide, x, y, noise, elbo) for noise in noises]
        for elbo in (Trace_ELBO(), TraceMeanField_ELBO())
    )
    checks = []
    for k, quantity in enumerate(("loss", "gradient of loc", "gradient of rho")):
        first, found = (np.array([draw[k] for draw in way]) for way in (sampled, closed))
        gaps = np.abs((first - found).mean(0))
        errors = (first - found).std(0, ddof=1) / np.sqrt(len(noises))
        # What happens in few draws may have happened in none of them: no error is taken for
        # smaller than is usual among the others.
        errors = np.maximum(errors, np.sqrt((errors**2).mean()))
        # Where no KL divergence has a closed form, the two are the same sampled number.
        allowed = STANDARD_ERRORS * errors + RELATIVE_TOLERANCE * max(np.abs(first).max(), 1.0)
        worst = int(np.argmax(gaps / allowed))
        mean = found.mean(0)
        value = float(mean[0]) if mean.size == 1 else float(np.linalg.norm(mean))
        quantity = f"{quantity}, mean of {len(noises)}"
        checks.append(Check(quantity, CLOSED, value, float(gaps[worst]), float(allowed[worst])))
    return checks


def _fit_side_by_side(
    network: BayesianNetwork,
    auto: AutoNormal,
    hand: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noises: list[dict[str, Tensor]],
    lr: float,
) -> list[Check]:
    # Each guide has its own copy of the network: point parameters are learnt as well.
    sides = []
    for guide in (auto, hand):
        model = copy.deepcopy(network)
        sides.append((guide, SVI(model, guide, pyro.optim.Adam({"lr": lr}), Trace_ELBO())))
    worst = {"loc": 0.0, "rho": 0.0}
    ends: dict[str, np.ndarray] = {}
    for noise in noises:
        for _, svi in sides:
            with _FixedNoise(noise):
                svi.step(x, y)
        pairs = zip(*(_parameters(guide, noise) for guide, _ in sides), strict=True)
        for which, (of_auto, of_hand) in zip(worst, pairs, strict=True):
            first, ends[which] = _flat(of_auto), _flat(of_hand)
            worst[which] = float(np.maximum(worst[which], np.abs(first - ends[which]).max()))
    return [
        Check(
            f"{which}, {len(noises)} steps of SVI",
            HAND,
            float(np.linalg.norm(ends[which])),
            worst[which],
            RELATIVE_TOLERANCE * max(1.0, float(np.abs(ends[which]).max())),
        )
        for which in worst
    ]


class _NotCoveredError(Exception):
    pass


def _by_hand(
    network: BayesianNetwork,
    guide: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noise: Mapping[str, Tensor],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute loss and gradients by `pyrobbb.reference`."""
    spec = mlp_spec(network.net)
    if spec is None or spec.activation not in ("relu", "tanh", "sigmoid"):
        raise _NotCoveredError("the network is no plain MLP with relu, tanh or sigmoid")
    parameters = dict(network.bayesian_parameters())
    if len(parameters) < len(list(network.net.parameters())):
        raise _NotCoveredError("some parameters are points")

    def layers(values: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        in_order = [values[name] for name in parameters]
        return list(zip(in_order[::2], in_order[1::2], strict=True))

    mu, rho, eps = (
        {name: value.detach().cpu().numpy() for name, value in part.items()}
        for part in (guide.split(guide.loc), guide.split(guide.rho), noise)
    )
    log_noise = mu.get("noise_scale")
    if log_noise is not None:
        log_noise = reference.sample(*([(v["noise_scale"],) * 2] for v in (mu, rho, eps)))[0][0]
    found = reference.nelbo_and_gradients(
        layers(mu),
        layers(rho),
        [layers(eps)],
        x.cpu().numpy(),
        y.cpu().numpy(),
        prior=layers({n: _reference_prior(network.prior, n, p) for n, p in parameters.items()}),
        likelihood=_reference_likelihood(network.likelihood, log_noise),
        activation=spec.activation,
    )
    loss = found.nelbo
    d_loc = [gradient for pair in found.d_mu for gradient in pair]
    d_rho = [gradient for pair in found.d_rho for gradient in pair]
    if log_noise is not None:
        w = reference.sample(layers(mu), layers(rho), layers(eps))
        output, _ = reference.feedforward(w, x.cpu().numpy(), spec.activation)
        residuals = output - y.cpu().numpy()
        kl, *gradients = _log_noise_by_hand(
            network.likelihood, rho["noise_scale"], eps["noise_scale"], log_noise, residuals
        )
        loss += kl
        d_loc.append(gradients[0])
        d_rho.append(gradients[1])
    flat = [np.concatenate([np.ravel(g) for g in some]) for some in (d_loc, d_rho)]
    return np.array([loss]), flat[0], flat[1]


def _log_noise_by_hand(
    likelihood: Any, rho: np.ndarray, eps: np.ndarray, u: np.ndarray, residuals: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Treat the learnt noise as one weight more, u = log(noise scale), with a normal prior."""
    prior = reference.GaussianPrior(
        scale=likelihood.noise_log_sd, loc=float(np.log(likelihood.noise_median))
    )
    log_q = -0.5 * eps**2 - reference.log_softplus(rho) - 0.5 * np.log(2 * np.pi)
    d_nll = (1 - (residuals / np.exp(u)) ** 2).sum()  # of n u + sum r^2 / (2 exp(2u))
    g = d_nll - prior.score(u)
    d_rho = reference.sigmoid(rho) * (eps * g - 1 / reference.softplus(rho))
    return float(log_q - prior.log_prob(u)), g, d_rho


def _reference_prior(prior: Any, name: str, parameter: Tensor) -> reference.Prior:
    while isinstance(prior, priors.ByName):
        prior = prior.choice(name)
    if isinstance(prior, priors.ScaleMixture):
        return reference.MixturePrior(prior.pi, prior.scale1, prior.scale2)
    if isinstance(prior, priors.Normal | priors.FanInNormal):
        normal = base_of(prior(name, parameter))
        return reference.GaussianPrior(
            scale=float(normal.stddev.flatten()[0]), loc=float(normal.mean.flatten()[0])
        )
    raise _NotCoveredError(f"it does not have the prior {type(prior).__name__}")


def _reference_likelihood(likelihood: Any, log_noise: Any) -> reference.Likelihood:
    match likelihood:
        case likelihoods.Gaussian() if not isinstance(likelihood.noise_median, tuple):
            scale = np.exp(log_noise) if likelihood.scale is None else likelihood.scale
            return reference.GaussianLikelihood(float(scale))
        case likelihoods.Bernoulli():
            return reference.BernoulliLikelihood()
        case likelihoods.Categorical():
            return reference.CategoricalLikelihood()
    raise _NotCoveredError(f"it does not have this likelihood ({likelihood})")
