"""A 3-32-1 regression network, fitted by pyrobbb and by hand-written NumPy, side by side.

First the mistake that a regression invites: a target of shape (100,) beside an output of shape
(100, 1). Then both fits, from separate starts, of the same model: N(0, 1) priors, noise of known
standard deviation.

Nothing here needs a learning rate of 1e-11 or a clamp on the output to stay finite. What makes
such a loss run away is a wrong sign: log N(w | mu, s^2) holds *minus* (w - mu)^2 / (2 s^2).
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
    truth = np.sin(2 * x[:, :1]) + 0.5 * x[:, 1:2]  # the third column says nothing
    return x, truth + NOISE * rng.standard_normal((n, 1)), truth


def show_the_broadcast(network, x, y, truth):
    flat = y[:, 0]
    print(f"output {truth.shape} minus y {flat.shape} has shape {(truth - flat).shape}")
    print(f"mean squared error of the true function: {((truth - y) ** 2).mean():.3f}")
    print(f"the same through that broadcast:         {((truth - flat) ** 2).mean():.3f}")
    print(f"through it, of the constant mean of y:   {((y.mean() - flat) ** 2).mean():.3f}, less!")
    for name, attempt in {
        "pyrobbb.fit": lambda: pyrobbb.fit(network, x, flat),
        "pyrobbb.reference": lambda: fit_by_hand(x, flat, n_steps=1),
    }.items():
        try:
            attempt()
        except ValueError as error:
            print(f"{name}: {error}")
        else:
            raise AssertionError(f"{name} took a flat y.")


def fit_by_hand(x, y, n_steps):
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
    # The Pyro model: weights from the prior, then y. fit() gives it a MeanFieldGuide.
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(3, [32], 1, activation="tanh", seed=0),
        prior=pyrobbb.priors.Normal(1.0),
        likelihood=pyrobbb.likelihoods.Gaussian(scale=NOISE),
    )
    show_the_broadcast(network, x, y, truth)

    posterior = pyrobbb.fit(network, x, y, epochs=n_steps, seed=0, progress=False)
    prediction = posterior.predict(x_test, seed=0)
    by_hand = fit_by_hand(x, y, n_steps=2 * n_steps)
    outputs = reference.predict(by_hand, x_test, n_draws=200, seed=0)

    print(
        f"\n100 rows, 1000 test rows, noise {NOISE}. nelbo: mean over the last tenth of the steps."
    )
    print(
        "rmse: from the predictive mean to y, and to the true function. doubt: mean epistemic sd."
    )
    print(f"{'':<28} {'nelbo':>7} {'rmse, y':>8} {'truth':>7} {'doubt':>7}")
    rows = {
        f"pyrobbb, {n_steps} steps": (
            posterior.history.nelbo,
            prediction.mean,
            prediction.epistemic_sd,
        ),
        f"NumPy, {2 * n_steps} steps": (by_hand.nelbo, outputs.mean(0), outputs.std(0)),
    }
    for how, (nelbo, mean, doubt) in rows.items():
        last = nelbo[-max(len(nelbo) // 10, 1) :].mean()
        errors = [np.sqrt(((mean - goal) ** 2).mean()) for goal in (y_test, truth_test)]
        print(f"{how:<28} {last:>7.1f} {errors[0]:>8.3f} {errors[1]:>7.3f} {doubt.mean():>7.3f}")
    agree = np.corrcoef(prediction.mean[:, 0], outputs.mean(0)[:, 0])[0, 1]
    print("The NumPy loop keeps one learning rate. fit() raises it and lets it fall to 0, and so")
    print("comes to a lower nelbo in fewer steps.")
    print(f"correlation of the two predictive means: {agree:.3f}")
    print(f"constant mean of y: rmse {np.sqrt(((y_test - y.mean()) ** 2).mean()):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # several threads only slow down a net this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(n_steps=20 if parser.parse_args().quick else 4000)
