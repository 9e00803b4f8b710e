"""Outputs of exported families against SciPy, and decompositions against torch; without export."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as dist
from torch.nn import functional

from pyrobbb.export.decompositions import elu, softplus
from pyrobbb.export.families import family_of
from pyrobbb.export.units import Units
from pyrobbb.export.writing import _check_outputs

RNG = np.random.default_rng(0)
LOC, SCALE = RNG.normal(size=(3, 4)), RNG.uniform(0.2, 0.8, (3, 4))  # 3 draws, 4 rows
LEVELS = (0.05, 0.5, 0.9)
SHIFTED = Units(loc=torch.tensor(2.0).double(), scale=torch.tensor(3.0).double())
BOUNDED = Units(
    loc=SHIFTED.loc,
    scale=torch.tensor(0.5).double(),
    log_bounds=(torch.tensor(-0.3).double(), torch.tensor(0.4).double()),
)
L, S = torch.as_tensor(LOC), torch.as_tensor(SCALE)
CASES = {
    "normal": (dist.Normal(L, S), SHIFTED, stats.norm(2 + 3 * LOC, 3 * SCALE)),
    "student": (dist.StudentT(5.0, L, S), SHIFTED, stats.t(5, 2 + 3 * LOC, 3 * SCALE)),
    "log-normal": (
        dist.LogNormal(L, S),
        SHIFTED,
        stats.lognorm(s=SCALE, loc=2, scale=3 * np.exp(LOC)),
    ),
    "bounded log-normal": (
        dist.LogNormal(L, S),
        BOUNDED,
        stats.lognorm(s=0.5 * SCALE, scale=np.exp(2 + 0.5 * LOC.clip(-0.3, 0.4))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_numbers_are_those_of_the_mixture_in_the_units_of_y(name):
    base, units, expected = CASES[name]
    outputs = family_of(base, LEVELS, fitted=False).outputs(base, units, LEVELS)
    means, variances = expected.mean(), expected.var()
    np.testing.assert_allclose(outputs["mean"], means.mean(0))
    np.testing.assert_allclose(outputs["epistemic_sd"], means.std(0))
    np.testing.assert_allclose(outputs["aleatoric_sd"], variances.mean(0) ** 0.5)
    np.testing.assert_allclose(outputs["sd"], (means.var(0) + variances.mean(0)) ** 0.5)
    for level, quantile in zip(LEVELS, outputs["quantiles"].numpy(), strict=True):
        np.testing.assert_allclose(expected.cdf(quantile).mean(0), level, rtol=1e-6)


def test_entropies_of_a_binary_class_are_those_of_two_outcomes():
    probs = RNG.uniform(size=(3, 4))
    base = dist.Bernoulli(torch.as_tensor(probs))
    outputs = family_of(base, (), fitted=False).outputs(base, Units(), ())
    np.testing.assert_allclose(outputs["entropy"], stats.bernoulli(probs.mean(0)).entropy())
    np.testing.assert_allclose(
        outputs["expected_entropy"], stats.bernoulli(probs).entropy().mean(0)
    )
    np.testing.assert_array_equal(outputs["label"], probs.mean(0) > 0.5)


def test_decompositions_have_the_arguments_of_torch():
    x = torch.linspace(-30, 30, 301, dtype=torch.float64)
    for beta, threshold in ((1.0, 20.0), (3.0, 6.0), (0.2, 1.0)):
        expected = functional.softplus(x, beta, threshold)
        torch.testing.assert_close(softplus(x, beta, threshold), expected)
    for arguments in ((1.0, 1.0, 1.0), (1.7, 1.05, 0.3)):
        expected = torch.ops.aten.elu(x, *arguments)
        torch.testing.assert_close(elu(x, *arguments), expected)


@pytest.mark.parametrize("wrong", ["mean", "sd", "quantiles"])
def test_every_output_of_a_program_is_checked(wrong):
    expected = {name: np.ones((2, 1)) for name in ("mean", "sd", "quantiles")}
    outputs = {name: torch.ones(2, 1) for name in expected}
    _check_outputs(outputs, expected, "torch")
    outputs[wrong] = outputs[wrong] * 1.01
    with pytest.raises(RuntimeError, match=f"the output '{wrong}' of the program differs"):
        _check_outputs(outputs, expected, "torch")
