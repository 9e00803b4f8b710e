"""NumPyro's SVI, AutoNormal and Trace_ELBO: one compiled step, or many in `lax.scan`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.initialization import init_to_value

from problems import Problem

from . import Weights


class NumPyroSVI:
    """Takes steps by `SVI.update`."""

    def __init__(self, problem: Problem, lr: float = 1e-3) -> None:
        self.problem = problem
        self.x, self.y = jnp.asarray(problem.x), jnp.asarray(problem.y)
        starts, scales = {}, {}
        for i, start in enumerate(problem.start()):
            starts[f"weight{i}"], starts[f"bias{i}"] = start.weight.T, start.bias
            scales[f"weight{i}_auto_scale"] = np.full_like(start.weight.T, start.weight_scale)
            scales[f"bias{i}_auto_scale"] = np.full_like(start.bias, start.bias_scale)
        guide = AutoNormal(self.model, init_loc_fn=init_to_value(values=starts))
        self.svi = SVI(self.model, guide, numpyro.optim.Adam(lr), Trace_ELBO())
        # Compiled: step by step it takes seven times as long, which a cold start would pay for.
        self.state = jax.jit(self.svi.init)(
            jax.random.PRNGKey(0), *self.batch(np.arange(problem.batch_size)), init_params=scales
        )
        self._update = jax.jit(self.svi.update)
        self._repeat = jax.jit(self._scan_one_batch, static_argnums=3)
        self._scan = jax.jit(self._scan_batches)

    def model(self, x: jax.Array, y: jax.Array) -> None:
        """Draw the weights, then y."""
        problem, n_rows = self.problem, len(x)
        for i, (n_in, n_out) in enumerate(zip(problem.widths, problem.widths[1:], strict=False)):
            weight = dist.Normal(jnp.zeros((n_in, n_out)), problem.prior_scale).to_event(2)
            bias = dist.Normal(jnp.zeros(n_out), problem.prior_scale).to_event(1)
            x = x @ numpyro.sample(f"weight{i}", weight) + numpyro.sample(f"bias{i}", bias)
            if i < len(problem.widths) - 2:
                x = jax.nn.relu(x)
        # The scale by hand: a plate with `n_data` would draw rows of its own at each step.
        factor = problem.n_data / n_rows
        with numpyro.handlers.scale(scale=factor), numpyro.plate("data", n_rows):
            if problem.task == "regression":
                numpyro.sample("y", dist.Normal(x, problem.noise_scale).to_event(1), obs=y)
            else:
                numpyro.sample("y", dist.Categorical(logits=x), obs=y)

    def batch(self, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Return the rows of x and y."""
        return self.x[rows], self.y[rows]

    def step(self, x: jax.Array, y: jax.Array) -> float:
        """Take a step, and give the loss before it."""
        self.state, nelbo = self._update(self.state, x, y)
        return float(nelbo)

    def steps_on(self, x: jax.Array, y: jax.Array, n_steps: int) -> np.ndarray:
        """Take many steps on one batch in one call, and give the losses."""
        self.state, nelbos = self._repeat(self.state, x, y, n_steps)
        return np.asarray(nelbos)

    def steps(self, rows: np.ndarray) -> np.ndarray:
        """Take a step on each batch of rows, shape (n_steps, batch_size), in one call."""
        self.state, nelbos = self._scan(self.state, self.x, self.y, rows)
        return np.asarray(nelbos)

    def _scan_one_batch(self, state: Any, x: jax.Array, y: jax.Array, n_steps: int) -> Any:
        return jax.lax.scan(lambda s, _: self.svi.update(s, x, y), state, length=n_steps)

    def _scan_batches(self, state: Any, x: jax.Array, y: jax.Array, rows: jax.Array) -> Any:
        return jax.lax.scan(lambda s, r: self.svi.update(s, x[r], y[r]), state, rows)

    def weights(self) -> list[Weights]:
        """Return the posterior of each layer."""
        found = {name: np.array(v) for name, v in self.svi.get_params(self.state).items()}
        return [
            Weights(
                found[f"weight{i}_auto_loc"].T,
                found[f"weight{i}_auto_scale"].T,
                found[f"bias{i}_auto_loc"],
                found[f"bias{i}_auto_scale"],
            )
            for i in range(len(self.problem.widths) - 1)
        ]
