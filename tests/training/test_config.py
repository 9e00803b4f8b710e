"""FitConfig: the arguments of fit, and the attributes derived from them."""

import dataclasses
import inspect

import numpy as np
import pyro.optim
import pytest
import torch
from pyro.infer import JitTrace_ELBO, Trace_ELBO
from ragged_fits import X, Y, quick_fit

import pyrobbb
from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, mlp
from pyrobbb.training import FitConfig


def config(**options):
    return FitConfig(BayesianNetwork(mlp(2, [3], 1)), np.zeros((4, 2)), np.zeros((4, 1)), **options)


def test_fields_are_the_arguments_of_fit_with_the_same_defaults():
    arguments = inspect.signature(pyrobbb.fit).parameters
    defaults = {n: p.default for n, p in arguments.items() if p.default is not p.empty}
    fields = dataclasses.fields(FitConfig)
    assert [field.name for field in fields] == list(arguments)
    assert {f.name: f.default for f in fields if f.default is not dataclasses.MISSING} == defaults


def test_derived_attributes_follow_from_the_arguments():
    made = config(objective="mean_field", n_particles=3, callbacks=print)
    assert isinstance(made.elbo, FusedELBO)
    assert (made.elbo.objective, made.elbo.num_particles) == ("mean_field", 3)
    assert made.callback_list == (print,)
    assert made.pauses_at_epochs
    assert made.optimizer_and_lr == (torch.optim.Adam, 0.01)
    assert config(optimizer=pyro.optim.Adam({"lr": 0.5})).optimizer_and_lr[1] == 0.5
    assert config(restarts=3).initial_chains == (None,) * 3


def test_settings_replace_callables_by_custom():
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
        (
            {"restarts": 2, "guide": print},
            "`restarts` needs guide='mean_field', 'low_rank' or 'auto_normal'",
        ),
    ],
)
def test_invalid_arguments_are_refused_before_the_data_are_read(options, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(BayesianNetwork(mlp(2, [3], 1)), None, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": 0}, ValueError, "`lr` must be positive, got 0"),
        ({"lr": "fast"}, TypeError, "`lr` must be a number, got 'fast'"),
        ({"epochs": 0}, ValueError, "`epochs` must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "`epochs` must be a whole number, got 1.5"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        (
            {"kl_warmup": 2},
            ValueError,
            r"`kl_warmup` must lie in \[0, 1\), got 2",
        ),
        ({"clip_norm": -1.0}, ValueError, "`clip_norm` must be positive"),
        ({"n_particles": 0}, ValueError, "`n_particles` must be at least 1"),
        ({"engine": "warp"}, ValueError, "`engine` must be one of auto, svi, fused, compiled"),
        ({"objective": "iwae"}, ValueError, "`objective` must be one of trace, mean_field"),
        ({"kl_weight": "cosine"}, ValueError, "`kl_weight` must be 'uniform', 'blundell'"),
        ({"schedule": "step"}, ValueError, "`schedule` must be one of one_cycle, cosine"),
        (
            {"guide": "full_rank"},
            ValueError,
            "`guide` must be 'mean_field', 'low_rank', 'auto_normal'",
        ),
        ({"patience": 3}, ValueError, "`patience` needs `validation`"),
        ({"validation": (X, Y[:3])}, ValueError, "`validation`: `x` and `y`"),
        ({"validation": X}, TypeError, r"`validation` must be a pair \(x, y\), got a ndarray"),
        ({"optimizer": "adam"}, TypeError, "`optimizer` must be a class such as torch.optim.Adam"),
        (
            {"guide": MeanFieldGuide},
            ValueError,
            "`guide` must be 'mean_field', 'low_rank', 'auto_normal' or",
        ),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"seed": 1.5}, TypeError, "`seed` must be a whole number, got 1.5"),
        (
            {"objective": JitTrace_ELBO()},
            ValueError,
            "JitTrace_ELBO records one step .* use Trace_ELBO",
        ),
        ({"n_data": 99}, ValueError, "`n_data` is 99, but x has 23 rows"),
        (
            {"objective": Trace_ELBO(num_particles=2), "n_particles": 3},
            ValueError,
            "`n_particles` is 3, but the objective has num_particles=2",
        ),
    ],
)
def test_invalid_arguments_of_fit_are_named(change, error, message):
    with pytest.raises(error, match=message):
        quick_fit(**change)
