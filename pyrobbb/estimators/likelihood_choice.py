"""Choice of the likelihood by the predictive density of held-out rows, for likelihood="auto"."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from .holdout import n_held_out
from .preparation import Rows
from .stages import Stages, TrainingOptions

AUTO_LIKELIHOODS = ("gaussian", "heteroscedastic")
HELD_OUT_FRACTION = 0.2


def choose_likelihood(
    networks: Mapping[str, BayesianNetwork],
    rows: Rows,
    options: TrainingOptions,
    stages: Stages,
    n_draws: int,
) -> str:
    """Return the likelihood under which held-out rows have the highest mean log density.

    Parameters
    ----------
    networks : mapping of str to BayesianNetwork
        Networks by the name of their likelihood, which is also the name of the stage.
    rows : Rows
        A fifth of them is held out.
    options : TrainingOptions
        `restarts` is ignored: a single chain is fitted with each likelihood.
    stages : Stages
    n_draws : int
        Draws of the weights for the predictions of held-out rows.
    """
    n_held = n_held_out("`likelihood`='auto'", HELD_OUT_FRACTION, len(rows))
    fitted, held = rows.split(n_held, options.seed)
    arguments = options.arguments(fitted) | {"restarts": 1}
    log_density = {}
    for name, network in networks.items():
        posterior = fit(
            network,
            fitted.x,
            fitted.y,
            sample_weight=fitted.weight,
            checkpoint=stages.folder(name),
            **arguments,
        )
        prediction = posterior.predict(held.x, n_draws, options.seed)
        log_density[name] = np.average(prediction.log_prob(held.y), weights=held.weight)
    return max(log_density, key=lambda name: log_density[name])
