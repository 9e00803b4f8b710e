"""A deep ensemble of classifiers of the estimator's size, tuned on its training rows."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from forecasts import Classes
from pyrobbb import mlp
from pyrobbb.estimators.networks import SMALL
from teaching_tables import Split
from uci_models import Units

MEMBERS, BATCH_SIZE, LR = 5, 128, 3e-3
WEIGHT_DECAYS = (0.0, 0.03, 0.3, 1.0)
STEPS = (100, 200, 400, 800, 1600)


def tuned_ensemble(split: Split) -> Classes:
    """Return the mean probabilities of five nets.

    Weight decay and number of steps have the least log loss of the ensemble on a fifth of the rows;
    the nets are then trained on all of them.
    """
    inputs = Units.of(split.x)
    x, x_test = (_tensor(inputs.to(rows)) for rows in (split.x, split.x_test))
    y = torch.as_tensor(split.y.astype(int))
    train, held = train_test_split(
        np.arange(len(y)), test_size=0.2, stratify=split.y, random_state=split.seed
    )
    losses = {}
    for decay in WEIGHT_DECAYS:
        for steps, probs in _train(x[train], y[train], x[held], decay, STEPS, split):
            chosen = probs[torch.arange(len(held)), y[held]]
            losses[decay, steps] = float(-chosen.clamp(min=1e-30).log().mean())
    decay, steps = min(losses, key=losses.__getitem__)
    ((_, probs),) = _train(x, y, x_test, decay, (steps,), split)
    return Classes(probs.double().numpy())


def _train(
    x: Tensor, y: Tensor, x_new: Tensor, decay: float, stops: tuple[int, ...], split: Split
) -> list[tuple[int, Tensor]]:
    """Train five nets, and return the mean probabilities of new rows after each number of steps."""
    seeds = [MEMBERS * split.seed + member for member in range(MEMBERS)]
    nets = [mlp(x.shape[1], SMALL, split.n_classes, seed=seed) for seed in seeds]
    weights, _ = stack_module_state(nets)
    logits = vmap(partial(functional_call, nets[0]))  # all nets at once
    optimizer = torch.optim.AdamW(weights.values(), lr=LR, weight_decay=decay)
    generator = torch.Generator().manual_seed(split.seed)
    found = []
    for step in range(1, max(stops) + 1):
        rows = torch.randint(len(x), (MEMBERS, min(BATCH_SIZE, len(x))), generator=generator)
        optimizer.zero_grad()
        outputs = logits(weights, x[rows])
        loss = nn.functional.cross_entropy(outputs.flatten(0, 1), y[rows].flatten())
        (MEMBERS * loss).backward()
        optimizer.step()
        if step in stops:
            with torch.no_grad():
                members = logits(weights, x_new.expand(MEMBERS, -1, -1)).softmax(-1)
            found.append((step, members.mean(0)))
    return found


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
