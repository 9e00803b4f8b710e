"""The engine that takes steps by Pyro's SVI, against a loop of SVI by hand."""

import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
)

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, mlp
from pyrobbb.model.guides import auto_normal
from pyrobbb.priors import ByName

X = torch.linspace(-1, 1, 36).double().reshape(12, 3)
Y = X.sin().sum(1, keepdim=True)
VECTORISED = {"vectorize_particles": True, "max_plate_nesting": 1}
OBJECTIVES = {
    "Trace": lambda: Trace_ELBO(),
    "Trace, draws in a loop": lambda: Trace_ELBO(2),
    "Trace, vectorised": lambda: Trace_ELBO(2, **VECTORISED),
    "MeanField": lambda: TraceMeanField_ELBO(),
    "MeanField, vectorised": lambda: TraceMeanField_ELBO(2, **VECTORISED),
    "Renyi": lambda: RenyiELBO(alpha=0.5, num_particles=2),
    "Renyi, vectorised": lambda: RenyiELBO(alpha=0.5, num_particles=2, **VECTORISED),
    "TailAdaptive": lambda: TraceTailAdaptive_ELBO(3, **VECTORISED),
    "Graph": lambda: TraceGraph_ELBO(),
    "Enum": lambda: TraceEnum_ELBO(max_plate_nesting=1),
    "ReweightedWakeSleep": lambda: ReweightedWakeSleep(2, vectorize_particles=False),
}


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no sample sites")
@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_fit_with_an_objective_of_pyro_is_bitwise_a_loop_of_svi(name, guide):
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).double(), ByName({"2.*": None}))
    posterior = fit(
        network,
        X,
        Y,
        objective=OBJECTIVES[name](),
        guide=guide,
        epochs=4,
        kl_warmup=0.0,
        schedule="constant",
        seed=3,
        progress=False,
    )
    by_hand = MeanFieldGuide(network) if guide == "mean_field" else auto_normal(network)
    by_hand(X, Y)
    start = [parameter.clone() for parameter in by_hand.parameters()]
    svi = SVI(network, by_hand, pyro.optim.Adam({"lr": 0.01}), OBJECTIVES[name]())
    pyro.set_rng_seed(3)
    for _ in range(4):
        svi.step(X, Y)
    assert posterior.settings["engine"] == "svi"
    pairs = list(zip(posterior.guide.parameters(), by_hand.parameters(), strict=True))
    pairs += zip(posterior.network.net[2].parameters(), network.net[2].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert all((p != s).any() for p, s in zip(by_hand.parameters(), start, strict=True))
