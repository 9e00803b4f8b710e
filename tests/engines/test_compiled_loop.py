"""The cache of compiled loops, and when a cached loop is reused."""

import platform

import pytest
import torch
import torch._inductor
from engine_fits import X, Y, assert_same_fit, network, quick_fit
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config, cpu_vec_isa

from pyrobbb import BayesianNetwork, likelihoods, mlp, priors
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines import compiled_loop
from pyrobbb.engines import fused as fused_engine
from pyrobbb.engines.compiled_loop import LoopCache, LoopKey, LoopSpec, compile_loop


@pytest.fixture
def calls(monkeypatch):
    """Record the calls of torch's compiler."""
    calls, original = [], torch._inductor.compile
    monkeypatch.setattr(torch._inductor, "compile", lambda *a: calls.append(1) or original(*a))
    return calls


def partly_frozen(frozen=0.0, prior=0.0):
    """Return a network with a frozen layer; the arguments change its weights and its prior."""
    net = mlp(3, [4], 1, "tanh", seed=0).double()
    net[0].requires_grad_(False)
    net[0].weight += frozen
    return BayesianNetwork(net, priors.Normal(1 + prior), likelihoods.Gaussian(0.3))


def compiled_and_checked(rtol=1e-10, x=X, y=Y, seed=1, **change):
    """Fit by compiled steps, and compare with fused ones."""
    compiled = quick_fit(partly_frozen(**change), "compiled", x=x, y=y, seed=seed)
    assert compiled.settings["engine"] == "compiled"
    fused = quick_fit(partly_frozen(**change), "fused", x=x, y=y, seed=seed)
    assert_same_fit(compiled, fused, rtol=rtol)
    return compiled


def test_a_loop_serves_other_frozen_weights_but_not_another_prior(python_compiler):
    """The steps are traced, and run by Python; the scale of the prior is a number in their code."""
    first = compiled_and_checked()
    assert_same_fit(compiled_and_checked(), first)
    # These changes are too small for the comparison of the losses to detect.
    other = compiled_and_checked(frozen=1e-5)
    assert (other.history.nll != first.history.nll).all()
    assert len(python_compiler) == 1
    other = compiled_and_checked(prior=1e-5)
    assert (other.history.kl != first.history.kl).all()
    assert len(python_compiler) == 2
    compiled_and_checked(prior=1e-5, x=2 * X, y=Y + 1, seed=9)
    assert len(python_compiler) == 2


def test_a_compiled_loop_serves_other_frozen_weights_but_not_another_prior(loop_cache, calls):
    first = compiled_and_checked()
    assert_same_fit(compiled_and_checked(), first)
    other = compiled_and_checked(frozen=1e-5, x=2 * X, y=Y + 1, seed=9)
    assert (other.history.nll != first.history.nll).all()
    assert len(calls) == len(loop_cache) == 1
    other = compiled_and_checked(frozen=1e-5, prior=1e-5)
    assert (other.history.kl != first.history.kl).all()
    assert len(calls) == len(loop_cache) == 2


def test_one_compilation_serves_calls_of_any_number_of_steps(loop_cache, calls, monkeypatch):
    singles = []
    take_singly = fused_engine.FusedEngine.run_with_noise
    monkeypatch.setattr(
        fused_engine.FusedEngine,
        "run_with_noise",
        lambda self, steps, *args: singles.append(len(steps)) or take_singly(self, steps, *args),
    )
    for options in (
        {"epochs": 1},
        {"epochs": 7},
        {"epochs": 400},  # 1200 steps: a call of 1024, and one of 176
        {"epochs": 3, "validation": (X, Y)},  # three calls
    ):
        compiled = quick_fit(engine="compiled", **options)
        assert compiled.settings["engine"] == "compiled"
        assert singles == []
        fused = quick_fit(engine="fused", **options)
        assert_same_fit(compiled, fused, rtol=1e-8, atol=1e-9)
        singles.clear()
    assert len(calls) == 1


def test_other_shapes_dtypes_threads_and_lengths_need_another_loop(python_compiler, monkeypatch):
    def n_compiled(**options):
        quick_fit(engine="compiled", **options)
        return len(python_compiler)

    assert n_compiled() == 1
    assert n_compiled(epochs=9, lr=0.1, seed=3) == 1
    assert n_compiled(x=X[:22], y=Y[:22]) == 2
    assert n_compiled(net=network(torch.float32)) == 3
    monkeypatch.setattr(compiled_engine, "MAX_STEPS_PER_CALL", 8)
    assert n_compiled() == 4
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert n_compiled() == 5


def test_a_loop_has_the_present_values_of_a_frozen_weight_and_no_copy_of_it(python_compiler):
    frozen = torch.ones(2)
    inputs = [torch.zeros(2)], [torch.zeros(1)], [torch.ones(2)]

    def step(value, _, x):
        value = value + frozen * x
        return value, value.sum()

    loop = compile_loop(step, *inputs, 1, "")
    frozen += 1
    assert loop(*inputs)[1].tolist() == [4.0]
    assert compile_loop(step, *inputs, 1, "")(*inputs)[1].tolist() == [4.0]
    assert len(python_compiler) == 1
    other = frozen.double()

    def in_double(value, _, x):
        value = value + other * x
        return value, value.sum()

    assert compile_loop(in_double, *inputs, 1, "")(*inputs)[1].tolist() == [4.0]
    assert len(python_compiler) == 2


@pytest.mark.skipif(
    not hasattr(config, "unsafe_marked_cacheable_functions"),
    reason="this version of torch compiles a loop anew in each process",
)
def test_a_later_process_takes_the_code_of_the_same_step_from_the_disk(
    loop_cache, monkeypatch, tmp_path
):
    """Torch's key has the code of the step, although the step is nested in the loop."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    inputs = [torch.zeros(2)], [torch.zeros(3, 1)], [torch.ones(2)]

    def run(factor, constant):
        """Return the results of three steps, and whether their code was on the disk."""
        shift = torch.tensor(constant)

        def step(value, _, x):
            value = factor * value + shift * x
            return value, value.sum()

        loop_cache._loops.clear()  # as in a new process
        hits = counters["inductor"]["fxgraph_cache_hit"]
        results = compile_loop(step, *inputs, 3, "")(*inputs)[1]
        return results.tolist(), counters["inductor"]["fxgraph_cache_hit"] > hits

    assert run(2.0, 1.0) == ([2.0, 6.0, 14.0], False)
    assert run(2.0, 1.0) == ([2.0, 6.0, 14.0], True)
    assert run(2.0, 0.5) == ([1.0, 3.0, 7.0], True)  # constants are inputs of the code
    assert run(3.0, 0.5) == ([1.0, 4.0, 13.0], False)


def key(code, model="a net", n=3):
    return LoopKey(LoopSpec.of([torch.zeros(n)], max_steps=5), code, (), model)


def test_the_cache_evicts_the_least_recently_used_loop():
    cache = LoopCache(max_size=2)
    loops = {code: nn.Identity() for code in "abc"}
    cache.put(key("a"), loops["a"])
    cache.put(key("b"), loops["b"])
    assert cache.get(key("a")) is loops["a"]
    cache.put(key("c"), loops["c"])
    assert len(cache) == 2
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) is loops["a"]
    assert cache.get(key("c")) is loops["c"]


def test_the_description_of_the_model_is_not_part_of_the_key():
    """The default description of an object is its address, which differs between equal models."""
    cache, loop = LoopCache(), nn.Identity()
    cache.put(key("a", model="<object at 1>"), loop)
    assert cache.get(key("a", model="<object at 2>")) is loop
    assert cache.has_similar(key("a").spec, "<object at 1>")
    assert not cache.has_similar(key("a").spec, "<object at 2>")
    assert not cache.has_similar(key("a", n=4).spec, "<object at 1>")


# The C++ compiler


@pytest.fixture
def trial_builds(monkeypatch):
    """Forget what torch knows of the compiler; return the instruction sets that it then tries.

    The processor has bfloat16 instructions, and the compiler has not.
    """
    tried = []

    def check_build(self, code):
        if code == cpu_vec_isa.VecISA._avx_code:  # others are for flags of an instruction set
            tried.append(str(self))
        return code != getattr(cpu_vec_isa.VecAVX512, "_avx512_bf16_code", None)

    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", check_build)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    compiled_loop.forget_instruction_sets()
    with config.patch({"cpp.vec_isa_ok": None}):
        yield tried
    compiled_loop.forget_instruction_sets()


def pick_by_torch(*failures):
    """Return a build that picks an instruction set, and raises these errors at first."""
    errors = list(failures)

    def compiled():
        picked = cpu_vec_isa.pick_vec_isa()
        if errors:
            raise errors.pop(0)
        return picked

    return compiled


def test_a_first_compilation_does_not_try_the_compiler_with_small_programs(trial_builds):
    compiled_loop._without_trial_builds(pick_by_torch())
    assert trial_builds == []
    assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize == 0  # others try it
    assert config.cpp.vec_isa_ok is None


def test_a_build_that_fails_is_repeated_after_these_trials(trial_builds, caplog):
    caplog.set_level("INFO", logger="pyrobbb")
    error = RuntimeError("unknown option -mamx")
    compiled_loop._without_trial_builds(pick_by_torch(error))
    known = [str(isa) for isa in cpu_vec_isa.valid_vec_isa_list()]
    assert trial_builds == (known if platform.machine() == "x86_64" else [])
    assert not any("bf16" in isa.build_arch_flags() for isa in cpu_vec_isa.valid_vec_isa_list())
    assert "is tried for each instruction set: unknown option -mamx" in caplog.text
    with pytest.raises(RuntimeError, match="unknown option"):
        compiled_loop._without_trial_builds(pick_by_torch(error))


def test_a_choice_by_the_user_or_by_earlier_trials_is_kept(trial_builds):
    with config.patch({"cpp.vec_isa_ok": False}):
        picked = compiled_loop._without_trial_builds(pick_by_torch())
        assert bool(picked) is (platform.machine() == "aarch64")  # where it is not tried
    compiled_loop.forget_instruction_sets()
    known = cpu_vec_isa.valid_vec_isa_list()
    compiled_loop._without_trial_builds(pick_by_torch())
    assert cpu_vec_isa.valid_vec_isa_list() is known
