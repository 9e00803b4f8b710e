"""A mistyped argument is refused with the name that was probably meant."""

import copy
import inspect
import pickle

import pytest
from sklearn.base import clone

import pyrobbb
from pyrobbb import BayesianNetwork, BBBClassifier, BBBRegressor, Posterior
from pyrobbb._core.signatures import suggests_arguments


@pytest.mark.parametrize(
    ("function", "word", "message"),
    [
        (pyrobbb.fit, "epoch", r"fit\(\) .* 'epoch'. Did you mean 'epochs'\?"),
        (pyrobbb.fit, "Batch_Size", "Did you mean 'batch_size'"),
        (pyrobbb.fit, "zzz", r"fit\(\) got an unexpected keyword argument 'zzz'$"),
        (pyrobbb.update, "kl_wieght", "Did you mean 'kl_weight'"),
        (pyrobbb.last_layer, "noise_scales", "Did you mean 'noise_scale'"),
        (pyrobbb.prune, "fractions", "Did you mean 'fraction'"),
        (pyrobbb.crosscheck, "nsteps", "Did you mean 'n_steps'"),
        (pyrobbb.sbc, "epoch", r"sbc\(\) .* Did you mean 'epochs'\?"),
        (pyrobbb.from_pyro, "num_draw", "Did you mean 'num_draws'"),
        (pyrobbb.diagnostics.diagnose, "tests", "Did you mean 'test'"),
        (pyrobbb.mlp, "activations", "Did you mean 'activation'"),
        (BayesianNetwork, "likelyhood", r"BayesianNetwork\(\) .* Did you mean 'likelihood'\?"),
        (BBBRegressor, "restart", r"BBBRegressor\(\) .* Did you mean 'restarts'\?"),
        (BBBClassifier, "n_draw", r"BBBClassifier\(\) .* Did you mean 'n_draws'\?"),
        (Posterior.predict, "ndraws", r"Posterior.predict\(\) .* Did you mean 'n_draws'\?"),
        (Posterior.draws, "seeds", "Did you mean 'seed'"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_nearest_name(function, word, message):
    with pytest.raises(TypeError, match=message):
        function(**{word: 1})


def test_other_errors_of_a_call_are_those_of_python():
    with pytest.raises(TypeError, match=r"fit\(\) missing 2 required positional arguments"):
        pyrobbb.fit()
    with pytest.raises(TypeError, match=r"mlp\(\) got multiple values for argument 'n_in'"):
        pyrobbb.mlp(1, [2], 3, n_in=4)


def test_a_function_keeps_its_signature_docstring_and_pickle():
    def plain(x: int, *, epochs: int = 3) -> int:
        """Return a product."""
        return x * epochs

    decorated = suggests_arguments()(plain)
    assert inspect.signature(decorated) == inspect.signature(plain)
    assert decorated.__doc__ == plain.__doc__
    assert decorated(2, epochs=4) == decorated(x=2, epochs=4) == 8
    assert pickle.loads(pickle.dumps(pyrobbb.fit)) is pyrobbb.fit
    model = BBBRegressor(hidden=(3,), epochs=2)
    assert clone(model).get_params() == copy.copy(model).get_params() == model.get_params()
