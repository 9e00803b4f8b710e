"""Binary labels from Bernoulli(0.6), fitted with two Monte Carlo draws per step and without NaN.

The labels do not depend on the inputs, so the correct answer is known: for every input, the
predictive probability should be near the posterior mean of a Beta-Bernoulli model.

With the likelihood ``y * log(softmax(output))`` averaged over two draws, the original program
returned NaN after about 20 steps. Four mistakes caused it:

- Softmax was taken over the observations instead of the classes. It compares rows with each other,
  and the loss decreases without bound as the outputs diverge.
- Both quadratic terms of the log densities had the wrong sign, which makes the weights diverge.
- log(softmax) was used instead of log_softmax. Softmax underflows to 0 for outputs about 745 below
  the largest (104 in single precision), and its logarithm is -inf.
- A label of 0 was multiplied by -inf, which is NaN. Through the sum it enters all gradients, and
  all weights after a single step.

Noise of standard deviation 0.1, clamped outputs or a tiny learning rate only delay this. The
solution is to use logits: log sigmoid(o) = -softplus(-o) is finite for every finite o.
"""

import argparse

import numpy as np
import torch
from scipy.special import digamma, entr

import pyrobbb
from pyrobbb import reference

N_DATA, TRUE_PROBABILITY = 100, 0.6


def show_nan(y):
    """Print the original loss, and the loss from logits, for outputs of increasing size."""
    direction = np.random.default_rng(1).standard_normal(y.shape)
    print("size of outputs   y * log(softmax) over rows   from logits")
    for size in (1, 100, 1000):
        output = size * direction
        with np.errstate(divide="ignore", invalid="ignore"):
            softmax = np.exp(output - output.max()) / np.exp(output - output.max()).sum()
            original = -(y * np.log(softmax)).sum()
        from_logits = reference.BernoulliLikelihood().nll(output, y)
        print(f"{size:>15} {original:>28.1f} {from_logits:>13.1f}")


def print_range(name, probs, nelbo):
    assert np.isfinite(nelbo).all()
    print(f"{name:<34} {probs.mean():.3f} ({probs.min():.3f} to {probs.max():.3f})")


def main(n_steps=20_000, epochs=1500):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_DATA, 3))
    y = rng.binomial(1, TRUE_PROBABILITY, (N_DATA, 1)).astype(float)
    show_nan(y)

    trained = reference.train(  # raises FloatingPointError if the nelbo is not finite
        x,
        y,
        hidden=[32],
        prior=reference.GaussianPrior(scale=1.0),
        likelihood=reference.BernoulliLikelihood(),
        n_steps=n_steps,
        n_draws=2,
        learning_rate=1e-3,
    )
    logits = reference.predict(trained, x, n_draws=500, seed=1)

    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(3, [32], 1, seed=0),
        prior=pyrobbb.priors.Normal(1.0),
        likelihood=pyrobbb.likelihoods.Bernoulli(),
    )
    # Two draws per step, vectorised. Raises NonFiniteLossError if a loss or gradient is not finite.
    posterior = pyrobbb.fit(network, x, y, epochs=epochs, n_particles=2, seed=0, progress=False)
    prediction = posterior.predict(x, n_draws=500, seed=1)

    n_ones = int(y.sum())
    print(f"\n{n_ones} of {N_DATA} labels are 1. Probability of a 1, mean (range) over the inputs:")
    print(f"{'true probability':<34} {TRUE_PROBABILITY:.3f}")
    print(f"{'Beta(1, 1) prior, posterior mean':<34} {(n_ones + 1) / (N_DATA + 2):.3f}")
    print_range(
        f"NumPy, {n_steps} steps of 2 draws", reference.sigmoid(logits).mean(0), trained.nelbo
    )
    print_range(f"pyrobbb, {epochs} steps of 2 draws", prediction.probs, posterior.history.nelbo)
    ones, zeros = n_ones + 1, N_DATA - n_ones + 1
    mean = np.array([ones, zeros]) / (ones + zeros)
    expected_entropy = mean @ (digamma(ones + zeros + 1) - digamma(np.array([ones, zeros]) + 1))
    print("\nEpistemic uncertainty (mutual information) and total entropy, in nats:")
    entropy = entr(mean).sum()
    print(f"Beta-Bernoulli {entropy - expected_entropy:.3f} of {entropy:.3f}", end="; ")
    information, entropy = prediction.mutual_information.mean(), prediction.entropy.mean()
    print(f"network {information:.3f} of {entropy:.3f}")
    print("(more, since under its prior the labels may depend on the inputs)")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    quick = parser.parse_args().quick
    main(n_steps=200 if quick else 20_000, epochs=20 if quick else 1500)
