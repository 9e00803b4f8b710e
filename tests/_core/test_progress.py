"""Progress: a bar for one fit, and a single one for the stages of several."""

import pytest
from support import X, Y, quick_fit

from pyrobbb._core import progress


class FakeBar:
    """Records what a bar shows."""

    made = ()

    def __init__(self, total, desc, disable=False, **_):
        self.total, self.disable, self.n, self.closed = total, disable, 0.0, False
        self.shown = [desc]
        FakeBar.made += (self,)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def update(self, n):
        self.n += n

    def set_description_str(self, words, refresh):
        self.shown.append(words)

    def set_postfix_str(self, words, refresh):
        self.postfix = words

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def bars(monkeypatch):
    monkeypatch.setattr(FakeBar, "made", ())
    monkeypatch.setattr(progress, "tqdm", FakeBar)
    return FakeBar


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_fit_alone_has_a_bar_of_its_epochs(bars, is_shown):
    with progress.epoch_bar(20, is_shown=is_shown) as bar:
        bar.update(5, "nelbo=1")
        bar.update(15)
        assert bar.n == 20
    (shown,) = bars.made
    assert (shown.total, shown.n, shown.closed, shown.disable) == (20, 20, True, not is_shown)
    assert shown.shown[0] == "fit"


def test_the_bars_of_a_choice_of_the_kl_weight_say_what_they_show(bars):
    held = X[:4], Y[:4]
    quick_fit(kl_weight="auto", validation=held, epochs=2, progress=True)
    assert [bar.shown for bar in bars.made] == [
        ["trying KL weights (1 of 2)"],
        ["fitting (2 of 2)"],
    ]
    quick_fit(epochs=2, progress=True)
    assert bars.made[2].shown == ["fit"]


def test_stages_share_one_bar_by_their_work_also_if_one_stops_early(bars):
    with progress.stages({"trial": 0.5, "fit": 1.0, "refit": 0.25}):
        with progress.epoch_bar(100, is_shown=True) as bar:
            bar.update(50)
            assert bars.made[0].n == pytest.approx(0.25)
        with progress.epoch_bar(10, is_shown=True) as bar:  # the one before stopped early
            assert bars.made[0].n == pytest.approx(0.5)
            bar.update(10)
        with progress.epoch_bar(10, is_shown=True) as bar:
            assert bars.made[0].n == pytest.approx(1.5)
    (shown,) = bars.made
    assert (shown.total, shown.closed) == (1.75, True)
    assert shown.n == pytest.approx(1.75)
    assert list(dict.fromkeys(shown.shown)) == ["trial (1 of 3)", "fit (2 of 3)", "refit (3 of 3)"]
    with progress.epoch_bar(3, is_shown=True):
        pass
    assert bars.made[1].total == 3


@pytest.mark.parametrize("names", [("fit",), ("fit", "refit")])
def test_several_stages_are_reported_in_a_line_each_where_there_is_no_bar(bars, names):
    lines = []
    with progress.stages_reported_to(lines.append), progress.stages(dict.fromkeys(names, 1.0)):
        for _ in names:
            with progress.epoch_bar(2, is_shown=False):
                pass
    assert lines == ([] if len(names) == 1 else ["fit (1 of 2)", "refit (2 of 2)"])
    assert all(bar.disable for bar in bars.made)


def test_the_bar_is_closed_and_forgotten_if_a_fit_fails(bars):
    with (
        pytest.raises(RuntimeError, match="broken"),
        progress.stages({"fit": 1.0}),
        progress.epoch_bar(2, is_shown=True),
    ):
        raise RuntimeError("broken")
    assert bars.made[0].closed
    with progress.epoch_bar(2, is_shown=True):
        assert len(bars.made) == 2
