"""The state of an optimiser as tensors and JSON."""

import collections
import json
import math
import re
from pathlib import Path

import pytest
import support
import torch
from support import Crash, assert_equal, crash_at
from torch import nn

import pyrobbb
from pyrobbb.engines.optimizer_state import NotStorableError, pack_state, unpack_state

OPTIMIZERS = {
    "Adam": torch.optim.Adam,
    "amsgrad": lambda p, lr: torch.optim.Adam(p, lr, amsgrad=True),
    "SGD": torch.optim.SGD,
    "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
    "RMSprop": lambda p, lr: torch.optim.RMSprop(p, lr, centered=True, momentum=0.1),
    "Rprop": torch.optim.Rprop,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "ASGD": torch.optim.ASGD,
    "NAdam": torch.optim.NAdam,
    "groups": lambda p, lr: torch.optim.AdamW([{"params": p[:1], "eps": 1e-3}, {"params": p[1:]}]),
}


class Custom(torch.optim.Optimizer):
    """SGD that keeps what `remember` returns for each parameter."""

    def __init__(self, parameters, lr, remember):
        super().__init__(parameters, {"lr": lr, "betas": (0.9, math.inf)})
        self.remember = remember

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad)
                self.state[parameter]["kept"] = self.remember(parameter)


def nested(parameter):
    return {"list": [parameter.clone(), (1, 2.5)], "inf": -math.inf, 3: None, "number": 2.0}


def stepped(factory, n_steps, optimizer=None, parameters=None):
    torch.manual_seed(n_steps)
    if parameters is None:
        parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
        optimizer = factory(parameters, lr=0.01)
    for _ in range(n_steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return optimizer, parameters


@pytest.mark.parametrize("name", [*OPTIMIZERS, "nested"])
def test_an_optimizer_continues_from_its_packed_state(name):
    factory = OPTIMIZERS.get(name, lambda p, lr: Custom(p, lr, nested))
    optimizer, parameters = stepped(factory, 3)
    packed = {name: tensor.clone() for name, tensor in pack_state(optimizer).items()}
    json.loads(packed["json"].numpy().tobytes(), parse_constant=pytest.fail)  # strict
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    again = factory(copies, lr=0.01)
    unpack_state(again, packed)
    assert str(again.state_dict()) == str(optimizer.state_dict())
    stepped(factory, 2, optimizer, parameters)
    stepped(factory, 2, again, copies)
    for parameter, copy in zip(parameters, copies, strict=True):
        assert torch.equal(parameter, copy)


UNSTORABLE = {
    "deque": (lambda p: collections.deque([p.clone()]), r"'kept'\] is a deque"),
    "set": (lambda p: {1, 2}, r"'kept'\] is a set"),
    "function": (lambda p: [nested], r"'kept'\]\[0\] is a function"),
    "sparse": (lambda p: p.detach().to_sparse(), r"'kept'\] is a Tensor, neither .* nor a dense"),
}


@pytest.mark.parametrize("name", UNSTORABLE)
@pytest.mark.parametrize("engine", ["fused", "svi"])
def test_a_state_that_cannot_be_stored_is_refused_before_the_first_step(
    name, engine, tmp_path, monkeypatch
):
    remember, message = UNSTORABLE[name]

    def optimizer(parameters, lr):
        return Custom(parameters, lr, remember)

    crash_at(monkeypatch, 0)
    with pytest.raises(NotStorableError, match=f"cannot store the `optimizer` Custom: .*{message}"):
        support.quick_fit(optimizer=optimizer, engine=engine, checkpoint=tmp_path, lr=1e-5)


def test_a_state_that_changes_its_kind_during_the_fit_does_not_end_it(tmp_path, caplog):
    n_calls = 0

    def late(parameter):
        nonlocal n_calls
        n_calls += 1
        return parameter.clone() if n_calls < 20 else {1}

    def optimizer(parameters, lr):
        return Custom(parameters, lr, late)

    options = {"lr": 1e-5, "engine": "svi"}
    fitted = support.quick_fit(optimizer=optimizer, checkpoint=tmp_path, every=3, **options)
    assert "There is no checkpoint at step" in caplog.text
    n_calls = 0
    assert_equal(fitted, support.quick_fit(optimizer=optimizer, **options))


@pytest.mark.parametrize("engine", ["fused", "svi"])
def test_a_fit_by_a_custom_optimizer_is_resumed(tmp_path, monkeypatch, engine):
    options = {
        "optimizer": lambda p, lr: Custom(p, lr, nested),
        "lr": 1e-5,
        "engine": engine,
        "callbacks": lambda end: None,
    }
    with monkeypatch.context() as patch:
        crash_at(patch, 6)
        with pytest.raises(Crash):
            support.quick_fit(checkpoint=tmp_path, every=3, **options)
    resumed = support.quick_fit(checkpoint=tmp_path, **options)
    assert_equal(resumed, support.quick_fit(**options))


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"dict": 3}', b'{"code": 1}', b'{"tensor": "9"}']
)
def test_a_damaged_state_is_refused(content):
    optimizer, _ = stepped(torch.optim.SGD, 1)
    packed = {"json": torch.frombuffer(bytearray(content), dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"state of the optimiser is damaged|Expecting"):
        unpack_state(optimizer, packed)


def test_nothing_in_the_package_reads_pickled_files():
    root = Path(pyrobbb.__file__).parent
    reads = re.compile(
        r"torch\.(load|save)\b|^\s*(import|from) (pickle|dill|cloudpickle|joblib|marshal|shelve)\b"
        r"|allow_pickle=True|read_pickle|(?<!\.)(?<!def )\b(eval|exec)\(",
        re.MULTILINE,
    )
    found = {p.name: m[0] for p in root.rglob("*.py") if (m := reads.search(p.read_text()))}
    assert found == {}
