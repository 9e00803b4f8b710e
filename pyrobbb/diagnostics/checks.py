"""A diagnosis of an approximate posterior: a table of checks, each with a verdict."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._core.arrays import ArrayLike, as_count, check_positive
from .._core.display import Displayed, Listing
from .._core.messages import shown
from .._core.random_state import as_seed
from .._core.signatures import suggests_arguments
from .._core.trees import InputsLike
from ..arviz_io.to_arviz import to_arviz
from ..fitted import HasChains
from ..fitted.draws import draws_of, predict_from
from ..prediction import ClassificationPrediction, RegressionPrediction
from . import cures, measurements
from .measurements import Measurement
from .weights import layers
from .wording import WORDING, Verdict, phrase

if TYPE_CHECKING:
    import pandas as pd
    import xarray


@dataclass(frozen=True)
class Check:
    """One line of a diagnosis.

    Attributes
    ----------
    key : str
        Identifies the check: ``"elbo"``, ``"scales"``, ``"skill"``, ``"weights_at_prior"``,
        ``"dead_units"``, ``"kl_weight"``, ``"khat"``, ``"loo"``, ``"restarts"``,
        ``"prior_scale"``, ``"intervals"``, ``"class_calibration"`` or ``"scores"``.
    name : str
        What was measured.
    value : str
        The result; ``"-"`` if not measured.
    verdict : {"good", "doubtful", "bad", "not measured", "info"}
        ``"info"`` for a number that is neither good nor bad in itself.
    meaning, advice : str
        What the verdict means, and what to do.
    cure : mapping of str to object
        Arguments of `fit` that the advice names, with the values to try: ``fit(..., **check.cure)``
        is a fit that follows it. Empty if there are none.
    """

    key: str
    name: str
    value: str
    verdict: Verdict
    meaning: str
    advice: str = ""
    cure: cures.Cure = field(default_factory=dict)

    @classmethod
    def of(cls, measurement: Measurement) -> Check:
        """Return the check for a measurement, with its wording."""
        key = measurement.key
        words = phrase(key, measurement.outcome)
        meaning = words.meaning.format(reason=measurement.reason, data=measurement.data)
        name = WORDING[key].name
        cure = measurement.cure if words.remedy else {}
        remedy = words.remedy.format(cure=cures.in_words(cure)) if cure else ""
        advice = f"{remedy} {words.advice}".strip()
        return cls(key, name, measurement.value, words.verdict, meaning, advice, cure)


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Displayed):
    """The result of `diagnose`.

    A check is found by its key or its name: ``diagnosis["elbo"]`` and ``diagnosis["ELBO"]``.

    Attributes
    ----------
    checks : tuple of Check
    layers : DataFrame
        See `layers`.
    tree : DataTree
        The draws that were examined, for ArviZ: outputs and latent sites of the likelihood.
    """

    checks: tuple[Check, ...]
    layers: pd.DataFrame
    tree: xarray.DataTree

    @property
    def table(self) -> pd.DataFrame:
        """The checks, one per row."""
        import pandas as pd

        rows = [[c.value, c.verdict, c.meaning, c.advice] for c in self.checks]
        columns = ["value", "verdict", "meaning", "advice"]
        return pd.DataFrame(rows, index=[c.name for c in self.checks], columns=columns)

    @property
    def ok(self) -> bool:
        """Whether no verdict is "bad"; checks that were not measured are ignored."""
        return all(check.verdict != "bad" for check in self.checks)

    def __getitem__(self, key: str) -> Check:
        for check in self.checks:
            if key in (check.key, check.name):
                return check
        raise KeyError(key)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        value = max(len(check.value) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.name:<{width}}  {check.value:<{value}}  {check.verdict.upper()}")
            words = f"{check.meaning} {check.advice}".strip()
            lines += textwrap.wrap(words, 92, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)

    def _listing(self) -> Listing:
        rows = [(c.name, c.value, c.verdict, c.meaning) for c in self.checks]
        notes = ("Meaning and advice in full: print(diagnosis), diagnosis.table.",)
        return Listing("Diagnosis", ("check", "value", "verdict", "meaning"), rows, notes)


@suggests_arguments()
def diagnose(
    posterior: HasChains,
    x: InputsLike,
    y: ArrayLike,
    *,
    test: tuple[InputsLike, ArrayLike] | None = None,
    scored: tuple[RegressionPrediction | ClassificationPrediction, ArrayLike] | None = None,
    kl_range: tuple[float, float] | None = None,
    n_draws: int = 1000,
    seed: int | None = None,
    data_name: str | None = None,
) -> Diagnosis:
    """Check whether a posterior can be relied on.

    Parameters
    ----------
    posterior : Posterior
    x, y : array-like of shape (n, ...)
        All the training data.
    test : tuple (x, y), optional
        Data not used in the fit, for scores and calibration. None: these are computed on the
        training data, where they are optimistic.
    scored : tuple (prediction, y), optional
        Calibrated predictions of the test data or else of the training data, for scores and
        calibration, and the observations, both in any units. None: those of the posterior. The
        estimators pass what they predict.
    kl_range : tuple (lowest, highest), optional
        The KL weights from which that of the fit was chosen. None: it was not chosen by a search.
    n_draws : int
        Draws from each chain, at least 100.
    seed : int, optional
        Makes the diagnosis repeatable. None: drawn at random.
    data_name : str, optional
        Name of the data of scores and calibration in the table. None: ``"training data"`` or
        ``"test data"``.

    Returns
    -------
    Diagnosis
        Prints as a table. A check without a measurement has the verdict "not measured": a single
        fit, for instance, cannot show whether another one would agree. To see whether the ELBO
        still rises, and whether the scales of the weights still change, copies of the chains are
        fitted for another fifth of the epochs, and for at least 1000 steps. After a fit with a
        `sample_weight`, which is not stored, checks that need the objective are not measured. If
        the likelihood has no finite mean, checks of means are not. Where a refit with other
        arguments is the cure, `Check.cure` has them.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), "Yes, but did it work? Evaluating variational
    inference".
    """
    n_draws = as_count("n_draws", n_draws, least=100)
    if kl_range is not None:
        _check_range(kl_range)
    seed = as_seed(seed)
    chains = posterior.chains
    # All chains have the same sites.
    latents = list(chains[0].network.latents_of(draws_of(chains, 1, seed)))
    tree = to_arviz(posterior, x, y, sites=latents, n_draws=n_draws, seed=seed)
    by_layer = layers(posterior)
    is_seen = scored is not None and test is None and data_name is None
    if scored is None:
        x_scored, y_scored = (x, y) if test is None else test
        scored = predict_from(chains, x_scored, n_draws, seed), y_scored
    data = data_name or ("training data" if test is None else "test data")
    convergence = list(measurements.convergence(chains, x, y, seed))
    cure = cures.smaller_kl_weight(chains)
    if convergence[0].outcome == "rising":
        cure = {**cure, **convergence[0].cure}
    skill = measurements.skill(tree, cure)
    weights = [] if kl_range is None else cures.kl_weights_of(chains)
    searches = [measurements.kl_range(min(weights), kl_range)] if kl_range and weights else []
    results = [
        *convergence,
        skill,
        measurements.weights_at_prior(by_layer, skill, cure),
        measurements.idle_units(posterior, skill, cure),
        *searches,
        *measurements.importance(chains, tree, is_deep=len(by_layer) > 2),
        measurements.restarts(tree),
        *measurements.prior_scale(tree),
        measurements.calibration(*scored, data, chains, is_seen=is_seen),
        measurements.predictive_scores(*scored, data),
    ]
    return Diagnosis(tuple(map(Check.of, results)), by_layer, tree)


def _check_range(kl_range: tuple[float, float]) -> None:
    """Raise unless the range is a pair of positive numbers in order."""
    if not isinstance(kl_range, tuple | list) or len(kl_range) != 2:
        raise TypeError(f"`kl_range` must be a pair (lowest, highest), got {shown(kl_range)}.")
    for bound in kl_range:
        check_positive("kl_range", bound)
    if kl_range[0] > kl_range[1]:
        raise ValueError(f"`kl_range` must be in order, got {shown(kl_range)}.")
