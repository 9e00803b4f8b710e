"""Saving in a process that dies: the folder holds either the old or the new posterior."""

import json
import subprocess
import sys
import textwrap

import pytest
from forks import forking

SAVES = """
    import json, os, random, shutil, signal, sys, time
    import numpy as np, torch
    from pathlib import Path
    from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, mlp
    from pyrobbb.fitted import FittedChain, History
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])

    def posterior(value, width):
        network = BayesianNetwork(mlp(5, [width], 1)).eval()
        guide = MeanFieldGuide(network)
        with torch.no_grad():
            for parameter in (*network.parameters(), *guide.parameters()):
                parameter.fill_(value)
        history = History(*[np.full(1, value)] * 3, np.zeros(1, int), np.ones(1, int))
        x, settings = torch.full((1, 5), value), {"value": value}
        return Posterior((FittedChain(network, guide, history, x, settings),))

    # What is imported at the first save, so that not every forked process imports it.
    posterior(0.0, 4).save(folder.parent / "first")

    def stored_value():
        try:
            read = Posterior.load(folder)
        except FileNotFoundError:
            return "none"
        values = {read.settings["value"], *read.history.nelbo, *read.example.flatten().tolist()}
        for part in (*read.network.parameters(), *read.guide.parameters()):
            values |= {part.min().item(), part.max().item()}
        assert len(values) == 1, values
        return values.pop()

    def n_leftovers():
        # Count the leftovers of the dead process after a much later save.
        for file in folder.iterdir():
            os.utime(file, (0, 0))
        last = stored_value()
        {1.0: old, 2.0: new}[last].save(folder)
        return len(list(folder.iterdir())) - 2
"""
EVERY_LINE = """
    # The process dies, or Ctrl-C is pressed, at each line of folders.py that a save runs and after
    # each system call.
    CALLS = {"open", "write", "flush", "fsync", "replace", "mkdir", "unlink", "rmdir", "close"}

    def run(n, save, act):
        if act in (die_after, press_after):
            return run_calls(n, save, act)
        count = 0
        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.endswith("folders.py"):
                return None
            if event == "line":
                count += 1
                if count == n:
                    sys.settrace(None)
                    act()
            return trace
        sys.settrace(trace)
        try:
            save()
        finally:
            sys.settrace(None)

    def run_calls(n, save, act):
        count = 0
        def profile(frame, event, argument):
            nonlocal count
            if event == "c_return" and argument.__name__ in CALLS:
                count += 1
                if count == n:
                    sys.setprofile(None)
                    act()
        sys.setprofile(profile)
        try:
            save()
        finally:
            sys.setprofile(None)

    def die():
        os._exit(7)

    def press():
        raise KeyboardInterrupt

    def die_after():
        die()

    def press_after():
        press()

    old, new = posterior(1.0, 4), posterior(2.0, 8)
    def attempt(n, act):
        # Return whether the save was completed.
        if act in (press, press_after):
            try:
                run(n, lambda: new.save(folder), act)
            except KeyboardInterrupt:
                return False
            return True
        child = os.fork()
        if child == 0:
            code = 3
            try:
                run(n, lambda: new.save(folder), act)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 7), code
        return code == 0

    os.fsync = lambda handle: None  # it is slow, and does not change what a reader sees
    seen = []
    for act in map(globals().__getitem__, sys.argv[2:]):
        for start in ("none", 1.0):
            n, is_over = 0, False
            while not is_over:
                n += 1
                if start == 1.0:
                    old.save(folder)
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                is_over = attempt(n, act)
                result = stored_value()
                seen.append((act.__name__, start, result))
                n_files = len(list(folder.iterdir())) if folder.exists() else 0
                if act in (press, press_after) and result != 2.0:
                    assert n_files == (0 if start == "none" else 2), n
                assert n < 500
                assert result == "none" or n_leftovers() == 0, n
    print(json.dumps(seen))
"""
KILLS = """
    old, new = posterior(1.0, 20_000), posterior(2.0, 30_000)
    draw = random.Random(0)
    for _ in range(20):
        # Each time anew: a child slower than expected would never come to its second save.
        began = time.perf_counter()
        old.save(folder)
        duration = time.perf_counter() - began
        child = os.fork()
        if child == 0:
            try:
                while True:
                    new.save(folder)
                    old.save(folder)
            finally:
                os._exit(3)
        time.sleep(draw.uniform(0, 4 * duration))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        print(stored_value())
    old.save(folder)
    assert n_leftovers() == 0
"""


def run_program(program, folder, *acts):
    code = textwrap.dedent(SAVES) + textwrap.dedent(program)
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder), *acts],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@forking
@pytest.mark.parametrize(
    "acts",
    [
        ("die", "press_after"),
        pytest.param(("press", "die_after"), marks=pytest.mark.slow),
    ],
    ids=", ".join,
)
def test_save_that_dies_at_any_line_leaves_the_old_or_the_new_posterior(tmp_path, acts):
    seen = json.loads(run_program(EVERY_LINE, tmp_path / "model", *acts))
    for act in acts:
        for start in ("none", 1.0):
            results = [r for a, s, r in seen if (a, s) == (act, start)]
            assert len(results) > 8
            first = results.index(2.0)  # the folder changes at a single moment
            assert set(results[:first]) == {start}
            assert set(results[first:]) == {2.0}


@forking
def test_process_killed_at_random_leaves_the_old_or_the_new_posterior(tmp_path):
    values = run_program(KILLS, tmp_path / "model").split()
    assert len(values) == 20
    assert set(values) == {"1.0", "2.0"}
