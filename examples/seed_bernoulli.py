"""Class labels from Bernoulli(0.6), a network with biases, two Monte Carlo draws, and no NaN.

The inputs say nothing about the labels, so the right answer is known: the predictive probability
should lie near the posterior mean of a Beta-Bernoulli model, whatever the input.

Written as ``y * log(softmax(output))``, with two draws averaged, this loss turned NaN after some 20
steps. Four things came together:

- softmax taken over the observations, not the classes: it compares the rows with each other, and
  the labels can be met only by driving outputs apart without end;
- both quadratic terms of the log densities with the wrong sign, which drives the weights apart;
- log(softmax) instead of log_softmax: softmax underflows to 0 at outputs some 745 below the
  largest (104 in single precision), and its logarithm is -inf;
- 0 * -inf: a label 0 multiplies that -inf, and the product is NaN. From the sum it gets into all
  gradients, and from there into all weights, in a single step.

Noise of standard deviation 0.1, a clamp on the output or a tiny learning rate put this off; none of
them mends it. Working from logits does: log sigmoid(o) = -softplus(-o) is finite for every o.
"""

import argparse

import numpy as np
import torch
from scipy.special import digamma, entr

import pyrobbb
from pyrobbb import reference

N_DATA, TRUTH = 100, 0.6


def show_the_nan(y):
    """Print the loss as it was written, and from logits, for outputs of growing size."""
    direction = np.random.default_rng(1).standard_normal(y.shape)
    print("size of outputs   y * log(softmax) over rows   from logits")
    for size in (1, 100, 1000):
        output = size * direction
        with np.errstate(divide="ignore", invalid="ignore"):
            softmax = np.exp(output - output.max()) / np.exp(output - output.max()).sum()
            as_written = -(y * np.log(softmax)).sum()
        from_logits = reference.BernoulliLikelihood().nll(output, y)
        print(f"{size:>15} {as_written:>28.1f} {from_logits:>13.1f}")


def describe(how, probs, nelbo):
    assert np.isfinite(nelbo).all()
    print(f"{how:<34} {probs.mean():.3f} ({probs.min():.3f} to {probs.max():.3f})")


def main(n_steps=20_000, epochs=1500):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_DATA, 3))
    y = rng.binomial(1, TRUTH, (N_DATA, 1)).astype(float)
    show_the_nan(y)

    by_hand = reference.train(  # raises FloatingPointError at the first nelbo that is not finite
        x,
        y,
        hidden=[32],
        prior=reference.GaussianPrior(scale=1.0),
        likelihood=reference.BernoulliLikelihood(),
        n_steps=n_steps,
        n_draws=2,
        learning_rate=1e-3,
    )
    logits = reference.predict(by_hand, x, n_draws=500, seed=1)

    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(3, [32], 1, seed=0),
        prior=pyrobbb.priors.Normal(1.0),
        likelihood=pyrobbb.likelihoods.Bernoulli(),
    )
    # Two draws a step, vectorised. A loss or gradient that is not finite raises NonFiniteLossError.
    posterior = pyrobbb.fit(network, x, y, epochs=epochs, n_particles=2, seed=0, progress=False)
    prediction = posterior.predict(x, n_draws=500, seed=1)

    n_ones = int(y.sum())
    print(
        f"\n{n_ones} ones among {N_DATA} labels. Probability of a 1, mean (range) over the inputs:"
    )
    print(f"{'the truth':<34} {TRUTH:.3f}")
    print(f"{'Beta(1, 1) prior, posterior mean':<34} {(n_ones + 1) / (N_DATA + 2):.3f}")
    describe(f"NumPy, {n_steps} steps of 2 draws", reference.sigmoid(logits).mean(0), by_hand.nelbo)
    describe(f"pyrobbb, {epochs} steps of 2 draws", prediction.probs, posterior.history.nelbo)
    ones, zeros = n_ones + 1, N_DATA - n_ones + 1
    share = np.array([ones, zeros]) / (ones + zeros)
    noise = share @ (digamma(ones + zeros + 1) - digamma(np.array([ones, zeros]) + 1))
    print("\nOf the uncertainty, what more data could remove, in nats:")
    print(f"Beta {entr(share).sum() - noise:.3f} of {entr(share).sum():.3f}", end="; ")
    doubt, total = prediction.mutual_information.mean(), prediction.entropy.mean()
    print(f"network {doubt:.3f} of {total:.3f}: it must allow for inputs that matter.")


if __name__ == "__main__":
    torch.set_num_threads(1)  # several threads only slow down a net this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    quick = parser.parse_args().quick
    main(n_steps=200 if quick else 20_000, epochs=20 if quick else 1500)
