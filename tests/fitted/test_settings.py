"""FitSettings: typed fields, and a mapping of those that are set."""

import dataclasses

import pytest

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.fitted import FitSettings, FittedChain


def test_settings_are_a_mapping_of_the_fields_that_are_set():
    settings = FitSettings(engine="fused", epochs=3, kl_weight=0.0)
    assert settings == {"engine": "fused", "epochs": 3, "kl_weight": 0.0}
    assert {**settings}.keys() == {"engine", "epochs", "kl_weight"}
    assert settings["epochs"] == settings.epochs == 3
    assert settings.get("is_weighted") is None
    assert "is_weighted" not in settings
    with pytest.raises(KeyError, match="seed"):
        settings["seed"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.epochs = 4


def test_other_items_are_kept_as_notes():
    items = {"seed": 1, "reward_scale": 10.0, "betas": [0.9, 0.99]}
    settings = FitSettings.from_mapping(items)
    assert settings == items
    assert settings.seed == 1
    assert settings.notes == {"reward_scale": 10.0, "betas": [0.9, 0.99]}
    assert FitSettings.from_mapping(settings) is settings


def test_chain_converts_a_mapping_to_settings():
    network = BayesianNetwork(mlp(1, [], 1))
    chain = FittedChain(network, None, None, None, {"lr": 0.1})
    assert chain.settings.lr == 0.1
    assert FittedChain(network, None, None, None).settings == {}
