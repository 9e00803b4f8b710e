"""Messages about arguments of the wrong kind: short, on one line, whatever was passed."""

import numpy as np
import pandas as pd
import pytest
import torch
from support import X, Y, quick_fit, shared_fit, small_network
from torch import nn

from pyrobbb import BayesianNetwork, Calibration, MeanFieldGuide, fit, mlp, prune
from pyrobbb.bandits import ThompsonSampler
from pyrobbb.elbo.fused_elbo import FusedELBO
from pyrobbb.likelihoods import Gaussian, NegativeBinomial, StudentT
from pyrobbb.priors import Around, ByName, FanInNormal, Given, Laplace, Normal, ScaleMixture
from pyrobbb.streams import Parquet

LARGE = {
    "array": np.arange(1000.0),
    "tensor": torch.arange(1000.0),
    "module": nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)]),
    "frame": pd.DataFrame({f"column {i}": np.zeros(100) for i in range(50)}),
    "text": "a long text\n" * 1000,
    "list": [np.zeros(100)] * 1000,
    "mapping": {i: torch.zeros(100) for i in range(1000)},
    "integer": 10**5000,
}
NAMED = ("array", "text", "list", "mapping")
OF_FIT = [
    "epochs", "batch_size", "lr", "schedule", "optimizer", "clip_norm", "engine", "objective",
    "n_particles", "estimator", "kl_weight", "kl_warmup", "guide", "validation", "patience",
    "callbacks", "every", "processes", "start", "restarts", "seed", "device", "dtype", "autocast",
    "sample_weight", "n_data",
]  # fmt: skip
CALLS = {f"fit({name}=)": lambda v, name=name: quick_fit(**{name: v}) for name in OF_FIT}
CALLS |= {
    "fit(network)": lambda v: fit(v, X, Y),
    "fit(x)": lambda v: quick_fit(x=v),
    "fit(y)": lambda v: quick_fit(y=v),
    "net": lambda v: BayesianNetwork([v]),
    "prior": lambda v: BayesianNetwork(mlp(2, [], 1), [v]),
    "likelihood": lambda v: BayesianNetwork(mlp(2, [], 1), likelihood=[v]),
    "a prior's result": lambda v: BayesianNetwork(mlp(2, [], 1), lambda name, parameter: v),
    "a likelihood's result": lambda v: small_network(likelihood=lambda output: v).prepare(X, Y),
    "mlp(n_inputs)": lambda v: mlp(v, [], 1),
    "mlp(hidden)": lambda v: mlp(1, v, 1),
    "mlp(activation)": lambda v: mlp(1, [], 1, v),
    "mlp(seed)": lambda v: mlp(1, [], 1, seed=v),
    "Normal": Normal,
    "FanInNormal": FanInNormal,
    "Laplace": Laplace,
    "ScaleMixture": ScaleMixture,
    "Given": lambda v: Given([v], [v]),
    "Around": lambda v: Around(v, v),
    "Around(relative)": lambda v: Around({}, 1.0, [v]),
    "ByName(patterns)": lambda v: ByName([v]),
    "ByName(rule)": lambda v: ByName({"*": [v]}),
    "Gaussian": lambda v: Gaussian(scale=v),
    "noise_median": lambda v: Gaussian(noise_median=v),
    "StudentT": lambda v: StudentT(df=v),
    "NegativeBinomial": NegativeBinomial,
    "init_scale": lambda v: MeanFieldGuide(small_network(), init_scale=v),
    "FusedELBO(objective)": lambda v: FusedELBO(objective=v),
    "FusedELBO(estimator)": lambda v: FusedELBO(estimator=v),
    "predict(x)": lambda v: shared_fit().predict(v),
    "predict(n_draws)": lambda v: shared_fit().predict(X, n_draws=[v]),
    "predict(seed)": lambda v: shared_fit().predict(X, seed=v),
    "quantile": lambda v: shared_fit().predict(X, n_draws=2).quantile(v),
    "interval": lambda v: shared_fit().predict(X, n_draws=2).interval(v),
    "log_prob": lambda v: shared_fit().predict(X, n_draws=2).log_prob(v),
    "prune": lambda v: prune(shared_fit(), v),
    "prune(posterior)": lambda v: prune(v, 0.5),
    "Calibration": lambda v: Calibration(v, v),
    "Parquet(target)": lambda v: Parquet("none.parquet", target=v),
    "ThompsonSampler": lambda v: ThompsonSampler(n_features=v, n_actions=2),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_messages_about_large_arguments_are_one_short_line(call):
    n_raised = 0
    for kind, value in LARGE.items():
        try:
            call(value)
        except Exception as error:
            n_raised += 1
            message = str(error)
            assert len(message) <= 300, (kind, message[:1000])
            assert "\n" not in message, (kind, message[:1000])
            if kind in NAMED and not isinstance(error, OSError | Warning):
                assert "`" in message or "The prior of" in message, (kind, message)
    assert n_raised > 0
