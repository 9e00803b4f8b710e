"""Bayes by Backprop as one writes it by hand, layer by layer, eagerly."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from . import Weights
from .torch_learner import GradientLearner


class HandWritten(GradientLearner):
    """A mean and a rho for each weight; the KL divergence is sampled."""

    def make(self) -> Iterable[nn.Parameter]:
        """Make the means and rhos of each layer's weights and biases."""
        self.sites: list[tuple[nn.Parameter, nn.Parameter]] = []
        for start in self.problem.start():
            for loc, scale in (
                (start.weight, start.weight_scale),
                (start.bias, start.bias_scale),
            ):
                rho = torch.full(loc.shape, float(np.log(np.expm1(scale))))
                self.sites.append((nn.Parameter(torch.as_tensor(loc)), nn.Parameter(rho)))
        return itertools.chain.from_iterable(self.sites)

    def nelbo(self, x: Tensor, y: Tensor) -> Tensor:
        """Draw the weights once; give the loss up to constants."""
        draws, kl = [], torch.zeros(())
        for loc, rho in self.sites:
            scale, noise = softplus(rho), torch.randn_like(loc)
            draw = loc + scale * noise
            log_q = -scale.log() - 0.5 * noise.square()
            log_prior = -0.5 * (draw / self.problem.prior_scale).square()
            kl = kl + (log_q - log_prior).sum()
            draws.append(draw)
        layers = list(zip(draws[::2], draws[1::2], strict=True))
        for weight, bias in layers[:-1]:
            x = linear(x, weight, bias).relu()
        return self.nll(linear(x, *layers[-1]), y) + kl

    def weights(self) -> list[Weights]:
        """Return the posterior of each layer."""
        parts = [
            (loc.detach().numpy().copy(), softplus(rho).detach().numpy().copy())
            for loc, rho in self.sites
        ]
        return [
            Weights(*weight, *bias) for weight, bias in zip(parts[::2], parts[1::2], strict=True)
        ]
