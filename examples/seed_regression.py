"""A 3-32-1 regression network, fitted by pyrobbb and by the NumPy reference implementation.

First, a common mistake in regression: a target of shape (100,) with an output of shape (100, 1).
Then two fits of the same model, from different initial values: N(0, 1) priors, noise of known
standard deviation.

Neither fit needs a learning rate of 1e-11 or clamped outputs to remain finite. The usual reason for
a diverging loss is a wrong sign: log N(w | mu, s^2) contains *minus* (w - mu)^2 / (2 s^2).
"""

import argparse

import numpy as np
import torch

import pyrobbb
from pyrobbb import reference

NOISE = 0.3


def make_data(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    truth = np.sin(2 * x[:, :1]) + 0.5 * x[:, 1:2]  # the third column has no effect
    return x, truth + NOISE * rng.standard_normal((n, 1)), truth


def show_broadcasting(network, x, y, truth):
    flat = y[:, 0]
    print(f"output {truth.shape} minus y {flat.shape} has shape {(truth - flat).shape}")
    print(f"mean squared error of the true function: {((truth - y) ** 2).mean():.3f}")
    print(f"the same with broadcasting:              {((truth - flat) ** 2).mean():.3f}")
    print(f"of the mean of y, with broadcasting:     {((y.mean() - flat) ** 2).mean():.3f}, lower!")
    for name, attempt in {
        "pyrobbb.fit": lambda: pyrobbb.fit(network, x, flat),
        "pyrobbb.reference": lambda: fit_in_numpy(x, flat, n_steps=1),
    }.items():
        try:
            attempt()
        except ValueError as error:
            print(f"{name}: {error}")
        else:
            raise AssertionError(f"{name} accepted a flat y.")


def fit_in_numpy(x, y, n_steps):
    return reference.train(
        x,
        y,
        hidden=[32],
        prior=reference.GaussianPrior(scale=1.0),
        likelihood=reference.GaussianLikelihood(scale=NOISE),
        activation="tanh",
        n_steps=n_steps,
        learning_rate=2e-3,
    )


def main(n_steps=4000):
    x, y, truth = make_data(100, seed=0)
    x_test, y_test, truth_test = make_data(1000, seed=1)
    # The Pyro model. By default, fit() creates a MeanFieldGuide for it.
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(3, [32], 1, activation="tanh", seed=0),
        prior=pyrobbb.priors.Normal(1.0),
        likelihood=pyrobbb.likelihoods.Gaussian(scale=NOISE),
    )
    show_broadcasting(network, x, y, truth)

    posterior = pyrobbb.fit(network, x, y, epochs=n_steps, seed=0, progress=False)
    prediction = posterior.predict(x_test, seed=0)
    trained = fit_in_numpy(x, y, n_steps=2 * n_steps)
    outputs = reference.predict(trained, x_test, n_draws=200, seed=0)

    print(f"\n100 training rows, 1000 test rows, noise {NOISE}. nelbo: mean over the last 10 %;")
    print("rmse of the predictive mean with respect to y and to the true function f.")
    print(f"{'':<28} {'nelbo':>7} {'rmse, y':>8} {'rmse, f':>8} {'epistemic sd':>13}")
    rows = {
        f"pyrobbb, {n_steps} steps": (
            posterior.history.nelbo,
            prediction.mean,
            prediction.epistemic_sd,
        ),
        f"NumPy, {2 * n_steps} steps": (trained.nelbo, outputs.mean(0), outputs.std(0)),
    }
    for name, (nelbo, mean, epistemic_sd) in rows.items():
        last = nelbo[-max(len(nelbo) // 10, 1) :].mean()
        rmse_y, rmse_f = (np.sqrt(((mean - goal) ** 2).mean()) for goal in (y_test, truth_test))
        sd = epistemic_sd.mean()
        print(f"{name:<28} {last:>7.1f} {rmse_y:>8.3f} {rmse_f:>8.3f} {sd:>13.3f}")
    correlation = np.corrcoef(prediction.mean[:, 0], outputs.mean(0)[:, 0])[0, 1]
    print("The learning rate of the NumPy loop is constant. fit() uses a warm-up and a decay to 0,")
    print("and reaches a lower nelbo in fewer steps.")
    print(f"correlation of the two predictive means: {correlation:.3f}")
    print(f"mean of y as a prediction: rmse {np.sqrt(((y_test - y.mean()) ** 2).mean()):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(n_steps=20 if parser.parse_args().quick else 4000)
