"""FitConfig: the arguments of fit, and what is derived from them."""

import dataclasses
import inspect

import numpy as np
import pyro.optim
import pytest
import torch

import pyrobbb
from pyrobbb import BayesianNetwork, FusedELBO, mlp
from pyrobbb.training import FitConfig


def config(**options):
    return FitConfig(BayesianNetwork(mlp(2, [3], 1)), np.zeros((4, 2)), np.zeros((4, 1)), **options)


def test_the_fields_are_the_arguments_of_fit_with_the_same_defaults():
    arguments = inspect.signature(pyrobbb.fit).parameters
    defaults = {n: p.default for n, p in arguments.items() if p.default is not p.empty}
    fields = dataclasses.fields(FitConfig)
    assert [field.name for field in fields] == list(arguments)
    assert {f.name: f.default for f in fields if f.default is not dataclasses.MISSING} == defaults


def test_what_is_derived_follows_from_the_arguments():
    made = config(objective="mean_field", n_particles=3, callbacks=print)
    assert isinstance(made.elbo, FusedELBO)
    assert (made.elbo.objective, made.elbo.num_particles) == ("mean_field", 3)
    assert made.callback_list == (print,)
    assert made.pauses_at_epochs
    assert made.optimizer_and_lr == (torch.optim.Adam, 0.01)
    assert config(optimizer=pyro.optim.Adam({"lr": 0.5})).optimizer_and_lr[1] == 0.5
    assert config(restarts=3).initial_chains == (None,) * 3


def test_settings_name_what_json_cannot_hold():
    settings = config(kl_weight=lambda i, n: 1 / n).settings(epochs=2, batch_size=3, n_data=4)
    assert settings.kl_weight == "custom"
    assert (settings.engine, settings.seed, settings.is_weighted) == (None, None, None)
    assert config(kl_weight=0.5).settings(epochs=2, batch_size=3, n_data=4).kl_weight == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "fast"}, "`engine` must be one of auto, svi, fused, compiled, got 'fast'"),
        ({"processes": 2}, "`processes` must be one of same_noise, own_noise, alone, got 2"),
        ({"kl_warmup": 1.2}, r"`kl_warmup` must lie in \[0, 1\), got 1.2"),
        ({"patience": 1}, "`patience` needs `validation` data"),
        ({"restarts": 2, "guide": print}, "`restarts` needs guide='mean_field' or 'auto_normal'"),
    ],
)
def test_invalid_arguments_are_refused_before_any_data_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(BayesianNetwork(mlp(2, [3], 1)), None, **options)
