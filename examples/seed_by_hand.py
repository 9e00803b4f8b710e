"""Bayes by Backprop in NumPy, without automatic differentiation.

The lists mu, rho, eps and w contain one pair (W, b) per layer. The two essential lines are those of
`g` and `d_rho` in `gradients`; the docstring of `pyrobbb.reference` derives them. This script
checks each gradient against finite differences of the cost in the paper, then trains a 1-16-1
network on a noisy sine.
"""

import argparse

import numpy as np

from pyrobbb import reference
from pyrobbb.reference import GaussianLikelihood, GaussianPrior, sigmoid, softplus

SIZES, ACTIVATION = [1, 16, 1], "tanh"
NOISE = 0.2
PRIOR, LIKELIHOOD = GaussianPrior(scale=1.0), GaussianLikelihood(scale=NOISE)


def flat(weights):
    return [array for pair in weights for array in pair]


def draw_noise(like, rng):
    return [(rng.standard_normal(W.shape), rng.standard_normal(b.shape)) for W, b in like]


def cost(mu, rho, eps, x, y):
    """Compute f = log q(w|theta) - log P(w) - log P(D|w), without cancelling any terms."""
    w = reference.sample(mu, rho, eps)  # w = mu + softplus(rho) * eps
    output, _ = reference.feedforward(w, x, ACTIVATION)
    f = LIKELIHOOD.nll(output, y)
    for w_i, mu_i, rho_i in zip(flat(w), flat(mu), flat(rho), strict=True):
        s = softplus(rho_i)
        log_q = -np.log(s) - 0.5 * ((w_i - mu_i) / s) ** 2 - 0.5 * np.log(2 * np.pi)
        f += log_q.sum() - PRIOR.log_prob(w_i)
    return f


def gradients(mu, rho, eps, x, y):
    """Compute the gradients of `cost` with respect to each array of mu and rho."""
    w = reference.sample(mu, rho, eps)
    output, cache = reference.feedforward(w, x, ACTIVATION)
    d_nll = reference.backpropagate(w, cache, LIKELIHOOD.d_nll(output, y), ACTIVATION)
    d_mu, d_rho = [], []
    for w_i, rho_i, eps_i, d_nll_i in zip(flat(w), flat(rho), flat(eps), flat(d_nll), strict=True):
        g = d_nll_i - PRIOR.score(w_i)  # of the negative log joint density
        d_mu.append(g)
        d_rho.append(sigmoid(rho_i) * (eps_i * g - 1 / softplus(rho_i)))
    return d_mu, d_rho


def train(mu, rho, x, y, rng, *, n_steps, learning_rate):
    """Run gradient descent, in place, and return the cost of each step."""
    costs = np.empty(n_steps)
    for step in range(n_steps):
        eps = draw_noise(mu, rng)
        costs[step] = cost(mu, rho, eps, x, y)
        d_mu, d_rho = gradients(mu, rho, eps, x, y)
        for array, d_array in zip([*flat(mu), *flat(rho)], [*d_mu, *d_rho], strict=True):
            array -= learning_rate * d_array
    return costs


def central_differences(f, array, h=1e-5):
    """Compute the central differences of f() for each element of an array that f reads."""
    result = np.empty_like(array)
    for i in np.ndindex(array.shape):
        middle = array[i]
        array[i] = middle + h
        above = f()
        array[i] = middle - h
        result[i] = (above - f()) / (2 * h)
        array[i] = middle
    return result


def check(mu, rho, eps, x, y):
    """Compare the gradients with finite differences and with those of `pyrobbb.reference`."""
    d_mu, d_rho = gradients(mu, rho, eps, x, y)
    print("gradient of   shape      largest element   relative error")
    for theta, arrays, analytic in (("mu", flat(mu), d_mu), ("rho", flat(rho), d_rho)):
        for name, array, gradient in zip(["W1", "b1", "W2", "b2"], arrays, analytic, strict=True):
            numeric = central_differences(lambda: cost(mu, rho, eps, x, y), array)
            largest = np.abs(numeric).max()
            error = np.abs(gradient - numeric).max() / largest
            print(f"{theta + ' ' + name:<13} {array.shape!s:<10} {largest:>15.3f}   {error:.1e}")
            assert error < 1e-6, f"The gradient of {theta} {name} is wrong."

    library = reference.nelbo_and_gradients(
        mu, rho, [eps], x, y, prior=PRIOR, likelihood=LIKELIHOOD, activation=ACTIVATION
    )
    assert np.isclose(library.nelbo, cost(mu, rho, eps, x, y), rtol=1e-12)
    expected = [*flat(library.d_mu), *flat(library.d_rho)]
    for gradient, expected_gradient in zip([*d_mu, *d_rho], expected, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-9)
    print("pyrobbb.reference.nelbo_and_gradients returns the same cost and gradients.\n")


def report(name, trained, x, y):
    last = trained.nelbo[-max(len(trained.nelbo) // 10, 1) :].mean()
    outputs = reference.predict(trained, x, n_draws=200, seed=1)
    rmse, epistemic_sd = np.sqrt(((outputs.mean(0) - y) ** 2).mean()), outputs.std(0).mean()
    print(f"{name:<24} {trained.nelbo[0]:>7.1f} {last:>7.1f} {rmse:>7.3f} {epistemic_sd:>12.3f}")


def main(n_steps=20_000):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (60, 1))
    y = np.sin(2 * x) + NOISE * rng.standard_normal(x.shape)
    mu, rho = reference.initialise(SIZES, rng)
    check(mu, rho, draw_noise(mu, rng), x, y)

    print(f"{n_steps} steps; cost of the first step, and mean over the last 10 %; rmse of the mean")
    print(f"output (the noise of y is {NOISE}); epistemic sd of the output, mean over the rows")
    print(f"{'':<24} {'first':>7} {'last':>7} {'rmse':>7} {'epistemic sd':>12}")
    costs = train(mu, rho, x, y, rng, n_steps=n_steps, learning_rate=2e-4)
    report("gradient descent, here", reference.Trained(mu, rho, costs, ACTIVATION), x, y)
    adam = reference.train(
        x,
        y,
        hidden=SIZES[1:-1],
        prior=PRIOR,
        likelihood=LIKELIHOOD,
        activation=ACTIVATION,
        n_steps=n_steps,
        learning_rate=1e-3,
    )
    report("Adam, reference.train", adam, x, y)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(n_steps=50 if parser.parse_args().quick else 20_000)
