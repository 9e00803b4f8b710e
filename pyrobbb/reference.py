"""Bayes by Backprop in NumPy alone, with every gradient derived by hand.

It is written for readers who differentiate the algorithm on paper, and for the tests of this
library, which compare its automatic differentiation with it. Everything is float64.

**The posterior.** Each weight has a normal distribution q of its own, with theta = (mu, rho)::

    w = mu + s * eps,    s = softplus(rho) = log(1 + exp(rho)),    eps ~ N(0, 1)              (1)

**The cost** is the negative evidence lower bound, KL(q || P) - E_q[log P(D|w)]. One draw of eps
estimates it by ::

    f = log q(w|theta) - log P(w) - log P(D|w)                                                (2)

The prior and the likelihood are both subtracted; their product appears nowhere.

**The chain rule** (Blundell et al. 2015, equations 3 and 4). f depends on theta through w and, in
log q, directly. From (1), dw/dmu = 1 and dw/drho = eps * sigmoid(rho), hence ::

    d_mu  = df/dw + df/dmu,    d_rho = df/dw * eps * sigmoid(rho) + df/drho                   (3)

**What log q adds.** log q = -log s - (w - mu)^2 / (2 s^2) - log(2 pi) / 2, with three derivatives,
in which (w - mu) / s = eps::

    dlogq/dw = -eps / s,    dlogq/dmu = +eps / s,    dlogq/ds = (eps^2 - 1) / s               (4)

In d_mu the first two cancel. In d_rho, sigmoid(rho) * (-eps^2 / s + (eps^2 - 1) / s) leaves
-sigmoid(rho) / s, whatever eps was. Put (1) into log q to see why: ``-log s - eps^2 / 2 - const``
contains neither mu nor w. So a sampled log q has, draw by draw, the gradient of its expectation,
which is minus the entropy of q; only the prior and the likelihood are left to differentiate::

    g = -dlogP(w)/dw - dlogP(D|w)/dw,    d_mu = g,    d_rho = sigmoid(rho) * (eps * g - 1 / s) (5)

**The prior**, N(loc, scale^2), or the mixture pi N(0, s1^2) + (1 - pi) N(0, s2^2) (the paper's
equation 7) where r is the probability that w came from its first component::

    -dlogP/dw = (w - loc) / scale^2    or    w * (r / s1^2 + (1 - r) / s2^2)                  (6)

**The likelihood**, with respect to the network's output o, with a row per observation::

    Gaussian (o - y) / scale^2,  Bernoulli sigmoid(o) - y,  categorical softmax(o) - onehot(y) (7)

**Backpropagation** takes (7) to the weights. Layer l computes a_l = h_(l-1) W_l' + b_l and, but for
the last, h_l = activation(a_l). With delta_l the gradient with respect to a_l, (7) is the last
delta, and ::

    dW_l = delta_l' h_(l-1),    db_l = sum of delta_l over rows                               (8)
    delta_(l-1) = (delta_l W_l) * activation'(a_(l-1))                                        (9)

**Minibatches and tempering.** A batch of n rows out of N counts N/n times; otherwise the prior
would weigh more, the smaller the batch. A weight k on the KL multiplies log q and log P: in (5),
the prior's part of g, and 1/s, but not the likelihood's part.

**Where NaN comes from.** exp overflows, log meets 0, and 0 * -inf is NaN. So no logarithm is taken
of what was exponentiated before: log_softmax, not log(softmax); logits, not probabilities;
``logaddexp`` for the softplus and the mixture; quotients of tiny numbers as exp of a difference of
logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = list[tuple[Array, Array]]
"""A pair (W of shape (n_out, n_in), b of shape (n_out,)) per layer: w, mu, rho, eps, gradients."""
T = TypeVar("T")


def softplus(z: Array) -> Array:
    """Return log(1 + exp(z)) without overflow."""
    result: Array = np.logaddexp(0.0, z)
    return result


def log_softplus(z: Array) -> Array:
    """Return log(softplus(z)), which is z, to within exp(z), where softplus(z) nears underflow."""
    result: Array = np.where(z < -40, z, np.log(softplus(np.maximum(z, -40))))
    return result


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)), the derivative of softplus, without overflow on either side."""
    result: Array = np.exp(-softplus(-z))
    return result


def log_softmax(z: Array) -> Array:
    """Return log probabilities over the last axis: the classes of one row, never over the rows."""
    shifted: Array = z - z.max(axis=-1, keepdims=True)
    log_total: Array = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted - log_total


def _normal_log_density(value: Array, loc: Array | float, scale: float) -> Array:
    log_norm: float = np.log(scale) + 0.5 * np.log(2 * np.pi)
    return -0.5 * ((value - loc) / scale) ** 2 - log_norm


@dataclass(frozen=True)
class GaussianPrior:
    """Normal prior on each weight, of standard deviation `scale` around `loc`."""

    scale: float = 1.0
    loc: float = 0.0

    def log_prob(self, w: Array) -> float:
        """Return log P(w), summed over an array of weights, with its constants."""
        return float(_normal_log_density(w, self.loc, self.scale).sum())

    def score(self, w: Array) -> Array:
        """Return dlogP/dw for each weight: minus equation 6."""
        return -(w - self.loc) / self.scale**2


@dataclass(frozen=True)
class MixturePrior:
    """Mixture pi N(0, scale1^2) + (1 - pi) N(0, scale2^2) on each weight (the paper's eq. 7)."""

    pi: float = 0.5
    scale1: float = 1.0
    scale2: float = 0.0025

    def log_prob(self, w: Array) -> float:
        """Return log P(w), summed over an array of weights, with its constants."""
        return float(np.logaddexp(*self._log_components(w)).sum())

    def score(self, w: Array) -> Array:
        """Return dlogP/dw for each weight: minus equation 6."""
        first, second = self._log_components(w)
        log_total = np.logaddexp(first, second)
        r, one_minus_r = np.exp(first - log_total), np.exp(second - log_total)
        return -w * (r / self.scale1**2 + one_minus_r / self.scale2**2)

    def _log_components(self, w: Array) -> tuple[Array, Array]:
        return (
            np.log(self.pi) + _normal_log_density(w, 0.0, self.scale1),
            np.log1p(-self.pi) + _normal_log_density(w, 0.0, self.scale2),
        )


@dataclass(frozen=True)
class GaussianLikelihood:
    """Normal noise of known standard deviation `scale`; output and y have shape (n, k)."""

    scale: float

    def nll(self, output: Array, y: Array) -> float:
        """Return -log P(y | output), summed over rows, with its constants."""
        _check_same_shape(output, y)
        return -float(_normal_log_density(y, output, self.scale).sum())

    def d_nll(self, output: Array, y: Array) -> Array:
        """Compute the gradient of `nll` with respect to the output: equation 7."""
        _check_same_shape(output, y)
        return (output - y) / self.scale**2


@dataclass(frozen=True)
class BernoulliLikelihood:
    """Two classes: the output holds the log-odds (logits) of y = 1; both have shape (n, k)."""

    def nll(self, output: Array, y: Array) -> float:
        """Return -log P(y | output), summed over rows, with its constants."""
        _check_binary(output, y)
        # -y log sigmoid(o) - (1 - y) log sigmoid(-o), where log sigmoid(o) = o - softplus(o)
        return float((softplus(output) - y * output).sum())

    def d_nll(self, output: Array, y: Array) -> Array:
        """Compute the gradient of `nll` with respect to the output: equation 7."""
        _check_binary(output, y)
        return sigmoid(output) - y


@dataclass(frozen=True)
class CategoricalLikelihood:
    """K classes: the output holds logits, shape (n, K); y whole numbers 0 .. K-1, shape (n,)."""

    def nll(self, output: Array, y: NDArray[Any]) -> float:
        """Return -log P(y | output), summed over rows, with its constants."""
        _check_labels(output, y)
        return -float(log_softmax(output)[np.arange(len(y)), y].sum())

    def d_nll(self, output: Array, y: NDArray[Any]) -> Array:
        """Compute the gradient of `nll` with respect to the output: equation 7."""
        _check_labels(output, y)
        onehot: Array = np.eye(output.shape[1])[y]
        return np.exp(log_softmax(output)) - onehot


Prior = GaussianPrior | MixturePrior
Priors = Prior | Sequence[tuple[Prior, Prior]]
"""One prior for all weights, or a (prior for W, prior for b) pair per layer."""
Likelihood = GaussianLikelihood | BernoulliLikelihood | CategoricalLikelihood
Activation = Literal["relu", "tanh", "sigmoid"]

# h = activation(a), and activation'(a) as a function of h, so that a need not be kept.
_ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda a: np.maximum(a, 0.0), lambda h: (h > 0).astype(float)),
    "tanh": (np.tanh, lambda h: 1 - h**2),
    "sigmoid": (sigmoid, lambda h: h * (1 - h)),
}


def feedforward(w: Weights, x: Array, activation: Activation = "relu") -> tuple[Array, list[Array]]:
    """Run the network, and keep what backpropagation needs.

    Parameters
    ----------
    w : Weights
    x : ndarray of shape (n, n_in)
    activation : {"relu", "tanh", "sigmoid"}
        After every layer but the last.

    Returns
    -------
    output : ndarray of shape (n, n_out)
    cache : list of ndarray
        The input h_(l-1) of each layer; the first is x.
    """
    if activation not in _ACTIVATIONS:
        raise ValueError(f"`activation` must be one of {[*_ACTIVATIONS]}, got {activation!r}.")
    activate, _ = _ACTIVATIONS[activation]
    cache = [x]
    for weight, bias in w[:-1]:
        cache.append(activate(cache[-1] @ weight.T + bias))
    weight, bias = w[-1]
    return cache[-1] @ weight.T + bias, cache


def backpropagate(
    w: Weights, cache: list[Array], d_output: Array, activation: Activation = "relu"
) -> Weights:
    """Compute the gradient of a scalar with respect to the weights (equations 8 and 9).

    Parameters
    ----------
    w, cache, activation
        As passed to, and returned by, `feedforward`.
    d_output : ndarray of shape (n, n_out)
        Gradient of that scalar with respect to the output.
    """
    _, derivative = _ACTIVATIONS[activation]
    gradients = []
    delta = d_output
    for layer in reversed(range(len(w))):
        gradients.append((delta.T @ cache[layer], delta.sum(axis=0)))  # equation 8
        if layer > 0:
            delta = (delta @ w[layer][0]) * derivative(cache[layer])  # equation 9
    return gradients[::-1]


def sample(mu: Weights, rho: Weights, eps: Weights) -> Weights:
    """Return the weights of one draw, w = mu + softplus(rho) * eps (equation 1).

    Raises
    ------
    ValueError
        If the arrays of a layer differ in shape: NumPy would broadcast them to a wrong posterior.
    """
    arrays = list(zip(_arrays(mu), _arrays(rho), _arrays(eps), strict=True))
    for i, (m, r, e) in enumerate(arrays):
        if not m.shape == r.shape == e.shape:
            raise ValueError(
                f"`mu`, `rho` and `eps` must agree in shape, but for {'Wb'[i % 2]} of layer "
                f"{i // 2} they have {m.shape}, {r.shape} and {e.shape}."
            )
    return _pairs([m + softplus(r) * e for m, r, e in arrays])


@dataclass(frozen=True)
class Gradients:
    """The cost, in nats, and its gradients, averaged over the draws."""

    nelbo: float
    """nll + kl_weight * kl."""
    nll: float
    """-log P(D|w), counted for n_data rows."""
    kl: float
    """log q(w|theta) - log P(w): an estimate of the KL divergence, and may be negative."""
    d_mu: Weights
    d_rho: Weights


def nelbo_and_gradients(
    mu: Weights,
    rho: Weights,
    eps: Sequence[Weights],
    x: Array,
    y: NDArray[Any],
    *,
    prior: Priors,
    likelihood: Likelihood,
    activation: Activation = "relu",
    n_data: int | None = None,
    kl_weight: float = 1.0,
) -> Gradients:
    """Estimate the negative evidence lower bound and differentiate it (equations 2 and 5).

    Parameters
    ----------
    mu, rho : Weights
        Means, and inverse softplus of the standard deviations: a list with a pair (W, b) per layer,
        W of shape (n_out, n_in) and b of shape (n_out,).
    eps : sequence of Weights
        Standard normal noise, one Weights per draw.
    x : ndarray of shape (n, n_in)
    y : ndarray of shape (n, n_out), or (n,) for `CategoricalLikelihood`
    prior : GaussianPrior, MixturePrior, or a sequence of (prior for W, prior for b) per layer
    likelihood : GaussianLikelihood, BernoulliLikelihood or CategoricalLikelihood
    activation : {"relu", "tanh", "sigmoid"}
    n_data : int, optional
        Rows in the whole data set: the nll counts n_data / n times. None: x is all of it.
    kl_weight : float
        Weight of log q - log P.

    Raises
    ------
    ValueError
        If there are no draws, or shapes or the number of priors do not fit.
    """
    if len(eps) == 0:
        raise ValueError("`eps` must hold at least one draw, got none.")
    priors = _one_an_array(prior, n_layers=len(mu))
    row_weight = 1.0 if n_data is None else n_data / len(x)
    nll = kl = 0.0
    d_mu = [np.zeros(m.shape) for m in _arrays(mu)]
    d_rho = [np.zeros(r.shape) for r in _arrays(rho)]
    for draw in eps:
        w = sample(mu, rho, draw)
        output, cache = feedforward(w, x, activation)
        nll += row_weight * likelihood.nll(output, y) / len(eps)
        d_output = row_weight * likelihood.d_nll(output, y)
        d_nll = backpropagate(w, cache, d_output, activation)
        arrays = zip(priors, _arrays(rho), _arrays(draw), _arrays(w), _arrays(d_nll), strict=True)
        for i, (p, r, e, w_i, d_nll_i) in enumerate(arrays):
            # log q with (w - mu) / s = eps put in, which is exact also where s underflows
            log_q = -(0.5 * e**2 + log_softplus(r) + 0.5 * np.log(2 * np.pi)).sum()
            kl += float(log_q - p.log_prob(w_i)) / len(eps)
            # Equation 5, left: g = -dlogP(w)/dw - dlogP(D|w)/dw
            g = d_nll_i - kl_weight * p.score(w_i)
            # Equation 5, middle: d_mu = g
            d_mu[i] += g / len(eps)
            # Equation 5, right: d_rho = sigmoid(rho) * (eps * g - 1/s). As rho falls 1/s overflows,
            # but sigmoid(rho) / s tends to 1: log sigmoid(rho) is -softplus(-rho)
            sigmoid_over_s = np.exp(-softplus(-r) - log_softplus(r))
            d_rho[i] += (sigmoid(r) * e * g - kl_weight * sigmoid_over_s) / len(eps)
    return Gradients(nll + kl_weight * kl, nll, kl, _pairs(d_mu), _pairs(d_rho))


def initialise(
    sizes: Sequence[int], rng: np.random.Generator, scale_fraction: float = 0.1
) -> tuple[Weights, Weights]:
    """Draw a starting (mu, rho): means of the order 1 / sqrt(n_in), scales a fraction of that.

    With scales as large as the means, the first gradients are noise.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    rng : numpy.random.Generator
    scale_fraction : float
        Scale of q over the spread of the means, positive.
    """
    mu, rho = [], []
    for n_in, n_out in pairwise(sizes):
        spread = 1 / np.sqrt(n_in)
        start = np.log(np.expm1(scale_fraction * spread))  # softplus(start) is the scale
        mu.append((rng.normal(0.0, spread, (n_out, n_in)), rng.normal(0.0, spread, n_out)))
        rho.append((np.full((n_out, n_in), start), np.full(n_out, start)))
    return mu, rho


@dataclass(frozen=True)
class Trained:
    """A fitted posterior: mu, rho, the nelbo of each step, shape (n_steps,), and the activation."""

    mu: Weights
    rho: Weights
    nelbo: Array
    activation: Activation


def train(
    x: Array,
    y: NDArray[Any],
    *,
    hidden: Sequence[int],
    prior: Priors,
    likelihood: Likelihood,
    activation: Activation = "relu",
    n_steps: int,
    n_draws: int = 1,
    batch_size: int | None = None,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> Trained:
    """Fit the posterior by Adam (Kingma and Ba 2015, algorithm 1).

    Parameters
    ----------
    x : ndarray of shape (n, n_in)
    y : ndarray of shape (n, n_out), or (n,) for `CategoricalLikelihood`
    hidden : sequence of int
        Units of each hidden layer; empty for a linear model.
    prior, likelihood, activation
        As for `nelbo_and_gradients`.
    n_steps, n_draws : int
        Gradient steps, and Monte Carlo draws averaged in each.
    batch_size : int, optional
        Rows drawn, without replacement, for each step. None: all.
    learning_rate : float
    seed : int
        Seed of the initial values, the batches and the noise.

    Raises
    ------
    ValueError
        If x is not a table, x and y differ in rows, or y does not fit the likelihood.
    FloatingPointError
        If the nelbo is not finite.
    """
    n_data = len(x)
    if x.ndim != 2 or n_data != len(y):
        raise ValueError(
            "`x` must have shape (n, n_in), with a row for each row of `y`, got shape "
            f"{x.shape} for y of shape {y.shape}: use x.reshape(-1, 1) if it is flat."
        )
    is_categorical = isinstance(likelihood, CategoricalLikelihood)
    n_out = int(y.max()) + 1 if is_categorical else y.reshape(n_data, -1).shape[1]
    rng = np.random.default_rng(seed)
    mu, rho = initialise([x.shape[1], *hidden, n_out], rng)
    parameters = [*_arrays(mu), *_arrays(rho)]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    nelbo = np.empty(n_steps)
    options: dict[str, Any] = {"prior": prior, "likelihood": likelihood, "activation": activation}
    for step in range(1, n_steps + 1):
        rows = slice(None) if batch_size is None else rng.choice(n_data, batch_size, replace=False)
        eps = [_noise(mu, rng) for _ in range(n_draws)]
        with np.errstate(over="ignore", invalid="ignore"):  # the error below says it better
            cost = nelbo_and_gradients(mu, rho, eps, x[rows], y[rows], n_data=n_data, **options)
        if not np.isfinite(cost.nelbo):
            raise FloatingPointError(
                f"The nelbo is {cost.nelbo} at step {step} (nll {cost.nll}, kl {cost.kl}): look "
                "for NaN or unscaled columns in `x` and `y`, then lower `learning_rate`."
            )
        nelbo[step - 1] = cost.nelbo
        gradients = [*_arrays(cost.d_mu), *_arrays(cost.d_rho)]
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m += 0.1 * (g - m)  # running mean of the gradient
            v += 0.001 * (g**2 - v)  # and of its square
            m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)  # both started at 0
            p -= learning_rate * m_hat / (np.sqrt(v_hat) + 1e-8)  # in place, so mu and rho move
    return Trained(mu, rho, nelbo, activation)


def predict(trained: Trained, x: Array, n_draws: int, seed: int) -> Array:
    """Run the network on x, shape (n, n_in), with weights drawn from the posterior.

    Returns
    -------
    ndarray of shape (n_draws, n, n_out)
        Raw outputs, means or logits, without observation noise.
    """
    rng = np.random.default_rng(seed)
    draws = (sample(trained.mu, trained.rho, _noise(trained.mu, rng)) for _ in range(n_draws))
    return np.stack([feedforward(w, x, trained.activation)[0] for w in draws])


def _noise(like: Weights, rng: np.random.Generator) -> Weights:
    return _pairs([rng.standard_normal(array.shape) for array in _arrays(like)])


def _arrays(weights: Sequence[tuple[T, T]]) -> list[T]:
    return [array for pair in weights for array in pair]


def _pairs(arrays: list[Array]) -> Weights:
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _one_an_array(prior: Priors, n_layers: int) -> list[Prior]:
    if isinstance(prior, Prior):
        return [prior] * (2 * n_layers)
    if len(prior) != n_layers:
        raise ValueError(
            "`prior` must be one prior, or a (prior for W, prior for b) pair for each layer, got "
            f"{len(prior)} pairs for {n_layers} layers."
        )
    return _arrays(prior)


def _check_same_shape(output: Array, y: Array) -> None:
    if output.shape != y.shape:
        raise ValueError(
            f"`y` has shape {y.shape}, but the network's output has shape {output.shape}, and the "
            "two would broadcast: give y the output's shape, by y.reshape(-1, 1) if it is flat."
        )


def _check_binary(output: Array, y: Array) -> None:
    _check_same_shape(output, y)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(f"`y` must hold 0 and 1, got values from {y.min()} to {y.max()}.")


def _check_labels(output: Array, y: NDArray[Any]) -> None:
    n, n_classes = output.shape
    if n_classes < 2:
        raise ValueError(
            "`CategoricalLikelihood` needs at least two outputs, got 1, whose log_softmax is 0 "
            "whatever the data: use `BernoulliLikelihood` for two classes with one output."
        )
    if y.shape != (n,) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= n_classes:
        raise ValueError(
            f"`y` must hold whole numbers from 0 to {n_classes - 1} in shape {(n,)}, one label for "
            f"each row of the output, got {y.dtype} from {y.min()} to {y.max()} in shape {y.shape}."
        )
