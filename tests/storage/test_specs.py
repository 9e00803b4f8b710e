"""Priors, likelihoods and networks as data: descriptions are complete, and invalid ones refused."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import pyro.distributions as dist
import pytest
import torch
from stored_folders import assert_refused, edit, edit_tensors, fitted, header_of

from pyrobbb import BayesianNetwork, Posterior, mlp, priors


def test_custom_prior_must_be_passed_to_load(tmp_path):
    def custom(name, parameter):
        return priors.Normal(0.5)(name, parameter)

    for prior in (custom, priors.ByName({"*.bias": custom})):
        fitted(prior=prior).save(tmp_path / "model")
        with pytest.raises(ValueError, match=r"the prior '.*custom', and code is not stored: pass"):
            Posterior.load(tmp_path / "model")
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), prior))


@dataclass(frozen=True, eq=False)
class Known:
    """A prior whose parameters are tensors."""

    loc: Mapping[str, torch.Tensor]
    scale: torch.Tensor

    def __call__(self, name, parameter):
        loc = self.loc[name].to(parameter)
        return dist.Normal(loc, self.scale.to(parameter)).expand(loc.shape).to_event(loc.dim())


def test_tensors_of_a_prior_are_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(priors, "Known", Known, raising=False)
    monkeypatch.setattr(priors, "__all__", [*priors.__all__, "Known"])
    net = mlp(3, [6], 1, seed=0)
    loc = {name: torch.randn(p.shape) for name, p in net.named_parameters()}
    prior = priors.ByName({"*.weight": Known(loc, torch.tensor(0.5))})
    posterior = fitted(net, prior, restarts=2)
    posterior.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model").chains[1].network.prior.patterns["*.weight"]
    assert after.scale == 0.5
    assert all(torch.equal(after.loc[name], value) for name, value in loc.items())
    Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), prior))
    other = priors.ByName({"*.weight": Known(loc, torch.tensor(0.6))})
    with pytest.raises(
        ValueError, match="its prior has parameter values that differ from those of"
    ):
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), other))
    edit_tensors(tmp_path / "model", **{"prior['*.weight']['scale']": None})
    with pytest.raises(ValueError, match=r"damaged: its prior\['\*.weight'\] has no tensor"):
        Posterior.load(tmp_path / "model")


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    "prior",
    [
        priors.Normal("learned", loc=0.5),
        priors.FanInNormal(priors.Learned(2, 0.5)),
        priors.ScaleMixture(0.3, "learned", 0.1),
        priors.Laplace("learned"),
        priors.StudentT(scale="learned"),
    ],
)
def test_learned_scales_are_stored(tmp_path, prior, by_name):
    prior = priors.ByName({"*.bias": prior}) if by_name else prior
    posterior = fitted(prior=prior)
    posterior.save(tmp_path / "model")
    loaded = Posterior.load(tmp_path / "model")
    assert loaded.network.prior == prior
    after, before = loaded.draws(3, seed=1), posterior.draws(3, seed=1)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), prior))
    with pytest.raises(ValueError, match=r"does not fit `path`.* its prior is"):
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), priors.Normal(0.3)))


LEARNED = {"type": "Learned", "median": 1.0, "log_sd": 1.0}


def learned_normal(**fields):
    return {"type": "Normal", "scale": {"type": "Learned", **fields}, "loc": 0.0}


def prior_by_name(pattern, prior):
    return {"type": "ByName", "patterns": {pattern: prior}, "default": {"type": "None"}}


NET = {"n_in": 3, "hidden": [6], "n_out": 1, "activation": "relu"}
DAMAGE = {
    "no hidden": (lambda f: edit(f, net={"n_in": 3}), "'net' has no field 'hidden'"),
    "fractional size": (
        lambda f: edit(f, net={**NET, "hidden": [0.5]}),
        "the sizes in its 'net' must be whole numbers of at least 1, got",
    ),
    "activation": (
        lambda f: edit(f, net={**NET, "activation": "exec"}),
        "'activation' in its 'net' must be one of relu, .*, got 'exec'",
    ),
    "input scale": (
        lambda f: edit(f, net={**NET, "input_scale": 1}),
        "'input_scale' in its 'net' must be true or false, got 1",
    ),
    "prior None": (
        lambda f: edit(f, prior={"type": "None"}),
        "'type' in its prior must be one of .*, got 'None'",
    ),
    "prior without type": (lambda f: edit(f, prior={}), "must be an object with a 'type'"),
    "prior's scale": (
        lambda f: edit(f, prior={"type": "Normal", "scale": -1.0, "loc": 0.0}),
        "its prior: `scale` must be positive, got -1.0",
    ),
    "prior's huge scale": (
        lambda f: edit(f, prior={"type": "Normal", "scale": 10**400, "loc": 0.0}),
        "its prior: ",
    ),
    "learned scale's median": (
        lambda f: edit(f, prior=learned_normal(median=-1.0, log_sd=1.0)),
        "its prior: `median` must be positive, got -1.0",
    ),
    "learned scale's field": (
        lambda f: edit(f, prior=learned_normal(median=1.0)),
        "its prior has no field 'log_sd'",
    ),
    "learned scale of another argument": (
        lambda f: edit(f, prior={"type": "Normal", "scale": 1.0, "loc": LEARNED}),
        "its prior: `loc` must be a number",
    ),
    "learned scale as a prior": (
        lambda f: edit(f, prior=LEARNED),
        "`prior` must be a callable",
    ),
    "learned scale of a likelihood": (
        lambda f: edit(
            f,
            likelihood={
                **header_of(f)["likelihood"],
                "scale": LEARNED,
            },
        ),
        "its likelihood: `scale` must be a number",
    ),
    "prior's parameter": (
        lambda f: edit(f, prior={"type": "Normal", "scale": 1.0, "loc": 0.0, "df": 1}),
        "prior has the unknown field 'df'",
    ),
    "pattern without a match": (
        lambda f: edit(f, prior=prior_by_name("9.*", {"type": "Normal", "scale": 1.0, "loc": 0.0})),
        "`patterns`: '9.*' matches no parameter",
    ),
    "prior by name": (
        lambda f: edit(f, prior=prior_by_name("0.*", {"type": "eval"})),
        r"'type' in its prior\['0.\*'\] must be one of .*, got 'eval'",
    ),
    "likelihood": (
        lambda f: edit(f, likelihood={"type": "StudentT", "scale": 1.0}),
        "likelihood has no field 'df'",
    ),
    "noise": (
        lambda f: edit(f, likelihood={**header_of(f)["likelihood"], "noise_median": [1.0, "a"]}),
        "its likelihood: `noise_median` must be a number, got 'a'",
    ),
}
NOT_STORED_CLASSES = [
    "os.system",
    "eval",
    "fan_in",
    "ScaleMixtureNormal",
    "Prior",
    "__import__",
    "priors.Normal",
]
DAMAGE |= {
    f"{part} {name}": (
        functools.partial(edit, **{part: {"type": name, "name": "fan_in", "parameter": "id"}}),
        f"'type' in its {part} must be one of .*, got '{name}'",
    )
    for name in NOT_STORED_CLASSES
    for part in ("prior", "likelihood")
}


@pytest.mark.parametrize("name", DAMAGE)
def test_invalid_description_is_refused(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    assert_refused(folder, message)
