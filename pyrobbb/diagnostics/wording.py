"""The wording of a diagnosis: for each check its name, and what each outcome means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "doubtful", "bad", "not measured", "info"]

LEVEL = 0.9
"""Probability of the intervals whose coverage is checked."""


@dataclass(frozen=True)
class Phrase:
    """What one outcome of a check means, and what to do.

    ``{reason}`` and ``{data}`` in the meaning are replaced by those of the measurement, and
    ``{cure}`` in `remedy` by the arguments to change and the values to try. Without a known cure,
    the advice is `advice` alone, otherwise `remedy` comes before it.
    """

    verdict: Verdict
    meaning: str
    advice: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Wording:
    """The name of a check, and a phrase for each of its outcomes."""

    name: str
    outcomes: Mapping[str, Phrase]


NOT_MEASURED = Phrase("not measured", "{reason}")
FOR_ANY_CHECK: dict[str, Phrase] = {
    "not measured": NOT_MEASURED,
    "other rows": Phrase(
        "not measured",
        "It needs exactly the rows of the fit.",
        "Run pyrobbb diagnose on the table of the fit.",
    ),
}

WORDING: dict[str, Wording] = {
    "elbo": Wording(
        "ELBO",
        {
            "converged": Phrase(
                "good",
                "That many more epochs do not raise the ELBO noticeably; longer continuations were "
                "not tried.",
            ),
            "rising": Phrase(
                "bad",
                "Not converged: more epochs still raise the ELBO.",
                "To continue it: `start=posterior`, in an estimator `warm_start=True`.",
                remedy="Try {cure}.",
            ),
            "not finite": Phrase("bad", "The ELBO is not finite.", "Lower the learning rate."),
            "diverged": Phrase("bad", "The fit cannot be continued: {reason}"),
            "closed form": Phrase("good", "At its maximum: the last layer has a closed form."),
        },
    ),
    "scales": Wording(
        "scales of the weights",
        {
            "closed form": Phrase("good", "Computed in closed form."),
            "converged": Phrase("good", "That many more epochs hardly change their median."),
            "moving": Phrase(
                "doubtful",
                "Too short a fit: more epochs still change the scales, and with them the epistemic "
                "uncertainty.",
                "Fit longer, or with more particles or larger batches.",
                remedy="Try {cure}.",
            ),
        },
    ),
    "skill": Wording(
        "fit against a constant",
        {
            "learned": Phrase("good", "The network has learned from its inputs."),
            "weak": Phrase(
                "doubtful",
                "The inputs explain little: noisy data, or a nearly collapsed posterior.",
                "Compare with a network without priors.",
                remedy="If y can be predicted, try {cure}.",
            ),
            "collapsed": Phrase(
                "bad",
                "Collapsed or underfitted: predictions are no better than a constant.",
                "A narrower network, a wider prior or a longer kl_warmup may help too.",
                remedy="If y can be predicted, try {cure}.",
            ),
            "not finite": Phrase("bad", "Predictions are not finite.", "Lower the learning rate."),
        },
    ),
    "weights_at_prior": Wording(
        "weights at the prior",
        {
            "few": Phrase("good", "Most weights have moved away from their prior."),
            "most": Phrase(
                "doubtful",
                "Most weights have learned nothing: the network is wider than the data support.",
                "A narrower network may be enough; see `layers`.",
            ),
            "spare": Phrase(
                "info",
                "The network is wider than these data need: the other weights do the work.",
            ),
            "collapsed": Phrase(
                "bad",
                "Collapsed: nearly all weights have learned nothing.",
                "A narrower network or a longer kl_warmup may help too.",
                remedy="If y can be predicted, try {cure}.",
            ),
        },
    ),
    "dead_units": Wording(
        "dead hidden units",
        {
            "few": Phrase("good", "Most units contribute to the output."),
            "most": Phrase(
                "doubtful",
                "Most units contribute nothing: the network is wider than the data support.",
                "A narrower network may be enough; see `layers`.",
            ),
            "spare": Phrase(
                "info",
                "The network is wider than these data need: the other units do the work.",
            ),
            "collapsed": Phrase(
                "bad",
                "Collapsed: hardly any unit has an outgoing weight with more signal than noise.",
                "A narrower network or a longer kl_warmup may help too.",
                remedy="If y can be predicted, try {cure}.",
            ),
        },
    ),
    "kl_weight": Wording(
        "chosen KL weight",
        {
            "inside": Phrase("good", "Larger and smaller weights predict held-out rows worse."),
            "full": Phrase(
                "good", "The whole KL divergence, as in the ELBO; no smaller is better."
            ),
            "lowest": Phrase(
                "doubtful",
                "The smallest weight that was tried: a smaller one may predict better.",
                "A network of another width may do without.",
                remedy="Try {cure}, or a range from there.",
            ),
            "highest": Phrase(
                "doubtful",
                "The largest weight that was tried: a larger one may predict better.",
                remedy="Try {cure}, or a range up to there.",
            ),
        },
    ),
    "khat": Wording(
        "k-hat of the weights",
        {
            "close": Phrase("good", "Close to the exact joint posterior of all weights."),
            "far": Phrase(
                "doubtful",
                "Far from the exact joint posterior of the weights.",
                "Do not read single weights; compare the predictions with `compare_with_nuts`.",
            ),
            "far, deep": Phrase(
                "info",
                "Far from the exact joint posterior of the weights, as for nearly every network "
                "with hidden layers. This says nothing about the predictions.",
                "For small networks, use `compare_with_nuts`.",
            ),
            "not finite": Phrase(
                "bad",
                "Some densities are NaN or infinite: these draws cannot be weighted.",
                "Check the prior and the scale of the data.",
            ),
        },
    ),
    "loo": Wording(
        "PSIS-LOO",
        {
            "reliable": Phrase("good", "The leave-one-out score is reliable."),
            "unreliable": Phrase(
                "doubtful",
                "In those rows, the leave-one-out score depends on a few draws.",
                "Use the score of a test set instead.",
            ),
            "unusable": Phrase(
                "info",
                "With a large k-hat of the weights, draws cannot be weighted to leave a row out.",
                "Use the score of a test set instead.",
            ),
        },
    ),
    "restarts": Wording(
        "agreement of restarts",
        {
            "agree": Phrase("good", "Independent fits give nearly the same predictions."),
            "close": Phrase(
                "good", "Independent fits differ, but by little beside the uncertainty of each."
            ),
            "differ": Phrase(
                "doubtful",
                "Independent fits give different predictions: a single fit is overconfident.",
                "Keep all restarts: their mixture is wider.",
            ),
            "not finite": Phrase("bad", "Some outputs are not finite or do not vary."),
            "single": Phrase(
                "not measured",
                "A single fit: R-hat between its own independent draws would always be 1.",
                remedy="Use fit(..., {cure}).",
            ),
        },
    ),
    "prior_scale": Wording(
        "scale of the prior's outputs",
        {
            "suitable": Phrase("good", "The prior allows outputs on the scale of the data."),
            "unsuitable": Phrase(
                "doubtful",
                "The prior expects outputs on a scale very different from that of the data.",
                "Standardise y, or scale the prior.",
            ),
        },
    ),
    "intervals": Wording(
        f"{LEVEL:.0%} intervals",
        {
            "calibrated": Phrase("good", "Their coverage is close to nominal."),
            "narrow": Phrase(
                "bad",
                "Too narrow: predictions are overconfident.",
                "Another likelihood may help, or fewer epochs.",
                remedy="Try {cure}.",
            ),
            "wide": Phrase(
                "doubtful",
                "Too wide.",
                "Another likelihood may help.",
                remedy="Fit longer: {cure}.",
            ),
            "wide, seen": Phrase(
                "info",
                "Wider than the rows of the fit need: they are calibrated for new rows, which are "
                "predicted less well.",
                "Rows that were not used in the fit show their coverage.",
            ),
        },
    ),
    "class_calibration": Wording(
        "calibration of classes",
        {
            "calibrated": Phrase("good", "Probabilities are close to observed frequencies."),
            "off": Phrase(
                "doubtful", "Probabilities are closer to equal than the observed frequencies."
            ),
            "off, seen": Phrase(
                "info",
                "Less certain than the rows of the fit need: probabilities are calibrated for new "
                "rows, which are predicted less well.",
                "Rows that were not used in the fit show their calibration.",
            ),
            "overconfident": Phrase(
                "doubtful",
                "Overconfident: the most probable class is observed less often.",
                remedy="Try {cure}.",
            ),
        },
    ),
    "scores": Wording(
        "scores",
        {
            "finite": Phrase(
                "info", "On the {data}; scores compare models, none is good or bad in itself."
            ),
            "not finite": Phrase("bad", "Some scores on the {data} are not finite."),
        },
    ),
}


def phrase(key: str, outcome: str) -> Phrase:
    """Return the phrase for an outcome of a check."""
    return WORDING[key].outcomes.get(outcome) or FOR_ANY_CHECK[outcome]
