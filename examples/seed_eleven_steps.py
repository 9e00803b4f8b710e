"""Bayes by Backprop in eleven steps of plain PyTorch, compared with Pyro and pyrobbb.

The steps follow a widely read outline of how to implement the algorithm without a library: inputs
as column vectors, one hidden layer of sigmoid units, N(0, 1) prior, cost
f = log q(w|theta) - log P(w) - log P(D|w). The comments point out mistakes in this outline and in
similar programs. The cost of the outline did not decrease steadily; this one decreases until it has
converged, apart from the noise of a single draw per step.
"""

import argparse

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, softplus

import pyrobbb

N_IN, N_HIDDEN, N_DATA = 2, 8, 200


def make_data():
    """Step 1: generate inputs x_1 .. x_N, the columns of x, and a label in {0, 1} for each."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N_IN, N_DATA, generator=generator)
    logits = 3 * x[0] - 2 * x[1]
    y = torch.bernoulli(torch.sigmoid(logits), generator=generator)
    return x, y[None]  # of shape (1, N), like the output: a flat y may broadcast


def make_theta():
    """Step 2: create mu and rho for each weight matrix w_l, both of its shape.

    One rho of the outline had a different shape from its weights. If the shapes broadcast, weights
    share a scale, and the posterior is not the intended one.
    """
    generator = torch.Generator().manual_seed(1)
    shapes = [(N_HIDDEN, N_IN), (1, N_HIDDEN)]
    mu = [torch.randn(shape, generator=generator) / shape[1] ** 0.5 for shape in shapes]
    rho = [torch.full(shape, -3.0) for shape in shapes]
    return [m.requires_grad_() for m in mu], [r.requires_grad_() for r in rho]


def draw_noise(mu):
    """Step 3: draw eps ~ N(0, 1), new at each step.

    With a standard deviation of 0.1, w would not have the density of step 5. eps is a constant
    without requires_grad, as it is not a parameter.
    """
    return [torch.randn_like(m) for m in mu]


def cost(mu, rho, eps, x, y):
    # Step 4: w = mu + s * eps. softplus does not overflow; log(1 + exp(rho)) does.
    s = [softplus(r) for r in rho]
    w = [m + s_i * e for m, s_i, e in zip(mu, s, eps, strict=True)]

    # Step 5: log q(w|theta). A common mistake is the wrong sign of -(w - mu)^2 / (2 s^2).
    log_q = sum(Normal(m, s_i).log_prob(w_i).sum() for m, s_i, w_i in zip(mu, s, w, strict=True))

    # Step 6: log P(w), the prior, at the drawn w, not at mu. The square is negative here too.
    log_prior = sum(Normal(0.0, 1.0).log_prob(w_i).sum() for w_i in w)

    # Step 7: the output, of shape (1, N), with the drawn weights. No clamp, no softmax.
    output = w[1] @ torch.sigmoid(w[0] @ x)

    # Step 8: log P(D|w). The outline took log_softmax over a single class, which is 0 for any
    # output: the cost did not depend on the data (see `main`). Its sign was wrong as well, as
    # cross-entropy is *minus* the log-likelihood.
    log_likelihood = -binary_cross_entropy_with_logits(output, y, reduction="sum")

    # Step 9: the cost. Subtract both log prior and log likelihood. Sum all terms over weights and
    # rows; do not average only some of them.
    return log_q - log_prior - log_likelihood


def train(n_steps, lr=0.005):
    x, y = make_data()
    mu, rho = make_theta()
    optimizer = torch.optim.Adam([*mu, *rho], lr=lr)
    costs = []
    for _ in range(n_steps):
        f = cost(mu, rho, draw_noise(mu), x, y)
        # Step 10: the gradients. As w depends on mu and rho, this call computes both terms of
        # equations 3 and 4: through w, and direct. With a detached w, the first would be missing.
        optimizer.zero_grad()
        f.backward()
        # Step 11: update the parameters, and continue at step 3 with new noise.
        optimizer.step()
        costs.append(f.item())
    return mu, rho, torch.tensor(costs)


def assert_equal_to_pyro(mu, rho):
    """Compare cost and gradients with stock Pyro on a BayesianNetwork, with the same noise."""
    x, y = make_data()
    net = nn.Sequential(
        nn.Linear(N_IN, N_HIDDEN, bias=False), nn.Sigmoid(), nn.Linear(N_HIDDEN, 1, bias=False)
    )
    network = pyrobbb.BayesianNetwork(
        net, prior=pyrobbb.priors.Normal(1.0), likelihood=pyrobbb.likelihoods.Bernoulli()
    ).double()
    guide = pyrobbb.MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.copy_(torch.cat([m.flatten() for m in mu]))
        guide.rho.copy_(torch.cat([r.flatten() for r in rho]))
    rows, targets = x.T.double(), y.T.double()  # one row per observation

    pyro.set_rng_seed(2)
    nelbo = Trace_ELBO().differentiable_loss(network, guide, rows, targets)
    nelbo.backward()

    pyro.set_rng_seed(2)
    w = torch.cat([value.flatten() for value in guide(rows).values()])
    eps = guide.split(((w - guide.loc) / guide.scale).detach()).values()  # the noise drawn by Pyro
    mu = [m.detach().double().requires_grad_() for m in mu]
    rho = [r.detach().double().requires_grad_() for r in rho]
    f = cost(mu, rho, eps, x.double(), y.double())
    f.backward()

    print(f"cost {f.item():.10f}, Trace_ELBO {nelbo.item():.10f}")
    torch.testing.assert_close(f, nelbo)
    for name, ours, reference in (("mu", mu, guide.loc), ("rho", rho, guide.rho)):
        gradient = torch.cat([parameter.grad.flatten() for parameter in ours])
        torch.testing.assert_close(gradient, reference.grad)
        difference = (gradient - reference.grad).abs().max()
        print(f"gradient of {name}: {len(gradient)} elements, largest difference {difference:.0e}")


def main(n_steps=3000):
    output = torch.randn(1, 5, requires_grad=True)
    log_likelihood = log_softmax(output, dim=0).sum()
    log_likelihood.backward()
    print(f"log_softmax over a single output: {log_likelihood.item():.1f}, ", end="")
    print(f"gradient {output.grad.abs().max().item():.1f}, independent of the data")

    torch.manual_seed(0)
    mu, rho, costs = train(n_steps)
    for part in costs.chunk(10):
        print(f"cost, mean over {len(part)} steps: {part.mean():.1f}")

    assert_equal_to_pyro(mu, rho)

    x, y = make_data()
    with torch.no_grad():
        draws = [
            [m + softplus(r) * torch.randn_like(m) for m, r in zip(mu, rho, strict=True)]
            for _ in range(200)
        ]
        probs = torch.stack([torch.sigmoid(w[1] @ torch.sigmoid(w[0] @ x)) for w in draws]).mean(0)
    accuracy = ((probs > 0.5) == (y > 0.5)).float().mean()
    majority = max(y.mean(), 1 - y.mean())
    print(f"training accuracy {accuracy:.0%}; share of the larger class {majority:.0%}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(n_steps=50 if parser.parse_args().quick else 3000)
