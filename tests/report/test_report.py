"""The report: valid, self-contained HTML, with the numbers of the scores."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from pyrobbb import Calibration, report, scores
from pyrobbb.diagnostics import Check, Diagnosis
from pyrobbb.diagnostics.wording import WORDING
from pyrobbb.estimators import BBBClassifier, BBBRegressor
from pyrobbb.report import findings as report_findings
from pyrobbb.report import model_sections
from pyrobbb.report.content import MAX_CELL, aligned, cell_text, number
from pyrobbb.report.findings import NEED_ROWS_OF_FIT, Findings
from pyrobbb.report.scores import score_numbers
from pyrobbb.tables.held_out import HeldOutScores, class_auc
from pyrobbb.tables.schema import Schema
from pyrobbb.tables.yardsticks import constant_numbers, linear_classes, linear_numbers

N = 80
BUDGET = {"hidden": (3,), "epochs": 3, "restarts": 2, "n_draws": 50, "random_state": 0}
EVIL, CATEGORY = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>"
TARGETS = {"regression": 'a "b" & <i>$x^$</i>', "classification": "</style><b>kind</b>"}
SECTIONS = [
    "scores",
    "predictions",
    "columns",
    "uncertainty",
    "rows",
    "diagnosis",
    "training",
    "fitted",
]
WITHOUT_END = {"meta"}


def sections_of(task):
    """Return the sections of a page; the KL weights of a regression are searched."""
    return [*SECTIONS[:-2], "search", *SECTIONS[-2:]] if task == "regression" else SECTIONS


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_a_browser = pytest.mark.skipif(
    BROWSER is None, reason="There is no Chromium here to open the page in."
)


def table(n=N, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            EVIL: rng.normal(size=n),
            "size": rng.gamma(3.0, size=n),
            "made": (pd.Timestamp("2001-05-01") + pd.to_timedelta(np.arange(n) * 3, "D")).strftime(
                "%Y-%m-%d"
            ),
            "of what": rng.choice([CATEGORY, "wood & iron", "$5$"], n),
            "name": [f"no. {i}" for i in range(n)],
        },
        index=pd.RangeIndex(2, n + 2, name="line"),
    )
    frame.loc[frame.index[::9], "size"] = np.nan
    y = 3 * frame[EVIL] + (frame["of what"] == CATEGORY) + 0.5 * rng.normal(size=n)
    frame[TARGETS["regression"]] = 100 + 10 * y
    labels = np.array(["<svg/onload=alert(3)>", "_quiet", "</main>"])
    frame[TARGETS["classification"]] = labels[np.digitize(y, [-1, 2])]
    return frame


def fitted(task):
    other = {"regression": "classification", "classification": "regression"}[task]
    frame = table().drop(columns=TARGETS[other])
    schema = Schema.of(frame, TARGETS[task], task)
    kind = BBBRegressor if task == "regression" else BBBClassifier
    return kind(**BUDGET).fit(schema.encode(frame), schema.target(frame)), schema, frame


@pytest.fixture(scope="module", params=["regression", "classification"])
def made(request, tmp_path_factory):
    """Return an estimator, its schema, the table, and the page about them."""
    estimator, schema, frame = fitted(request.param)
    path = tmp_path_factory.mktemp("report") / "page.html"
    report.write(path, estimator, schema, frame)
    return estimator, schema, frame, path


@pytest.fixture
def quick(monkeypatch):
    """Return the parts of a report on a regression whose diagnosis takes no time."""
    estimator, schema, frame = fitted("regression")

    def diagnose(*_, data_name, **__):
        value = f"1 ({data_name or 'training data'})"
        keys = (*NEED_ROWS_OF_FIT, "scores")
        checks = [Check(key, WORDING[key].name, value, "good", "Fine.") for key in keys]
        return Diagnosis(tuple(checks), pd.DataFrame(), None)

    monkeypatch.setattr(BBBRegressor, "diagnose", diagnose)
    return estimator, schema, frame


class Page(HTMLParser):
    """The tags, texts of sections and rows of tables of a page, and end tags out of order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open, self.crossed = [], {}, [], []
        self.rows = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in WITHOUT_END:
            self.open.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self.open[-1][0] != tag:
            self.crossed.append(tag)
        self.open.pop()

    def handle_data(self, data):
        inside = [tag for tag, _ in self.open]
        section = next((a["id"] for tag, a in self.open if tag == "section"), "header")
        if "style" not in inside:
            self.texts[section] = self.texts.get(section, "") + data
        if "td" in inside or "th" in inside:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(made):
    return Page(made[3].read_text(encoding="utf-8"))


def test_the_page_is_well_formed_html_with_every_section(made, page):
    sections = sections_of(made[1].task)
    assert page.crossed == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [a["id"] for tag, a in page.tags if tag == "section"] == sections
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == [f"#{section}" for section in sections]
    assert all(page.texts[section].strip() for section in sections)


def test_the_page_is_self_contained(made, page):
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert attributes.get(name, "#").startswith("#")
    html = made[3].read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)|@import", html) == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object"} == set()


def test_names_and_cells_of_the_table_are_escaped(made, page):
    _, schema, _, _ = made
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert {tag for tag, _ in page.tags} & {"script", "i"} <= {"i"}
    assert all(set(a) <= {"class", "style"} for tag, a in page.tags if tag == "i")
    shown = " ".join(page.texts.values())
    for name in (EVIL, CATEGORY, schema.target_name, *schema.classes):
        assert name in shown
    assert "the last indicates missing values" in shown
    assert "days since 1970-01-01" in shown
    assert "an identifier" in shown


def test_every_figure_has_a_title_and_a_caption(made, page):
    html = made[3].read_text(encoding="utf-8")
    figures = re.findall(r"<figure>(.*?)</figure>", html, re.DOTALL)
    assert len(figures) >= 6
    for figure in figures:
        caption = re.search(r"<figcaption><b>(.+?)</b> (.+?)</figcaption>", figure, re.DOTALL)
        assert len(caption[2].split()) > 8
        assert 'role="img" aria-label="' in figure or "<table" in figure
    assert "#2a6f97" not in "".join(figures)  # colours are variables of the style sheet


def test_the_scores_shown_are_those_of_pyrobbb_scores(made, page):
    estimator, schema, frame, _ = made
    (headers,) = [row for row in page.rows if row[:1] == ["score"]]
    assert headers == ["score", "model", "linear", "constant", "meaning"]
    shown = {row[0]: row[1:4] for row in page.rows if len(row) == 5}
    x, y = schema.encode(frame), schema.target(frame)
    prediction = estimator.predict_distribution(x)

    def both(score, *others):
        return [f"{score(prediction, y):.4g}", f"{score(linear, y):.4g}", *others]

    if schema.task == "regression":
        linear = linear_numbers(x, y, x)
        assert shown["RMSE"] == both(scores.rmse, f"{y.std():.4g}")
        nll = 0.5 * np.log(2 * np.pi * np.e * y.var())
        assert shown["NLL"] == both(scores.nll, f"{nll:.4g}")
        assert shown["CRPS"][0] == f"{scores.crps(prediction, y, 99):.4g}"
        r2 = f"{estimator.score(x, y):.4g}".replace("-", "\N{MINUS SIGN}")
        assert (shown["R²"][0], shown["R²"][2]) == (r2, "0")
        for level in (0.5, 0.9):
            coverage = scores.coverage(prediction, y, level)
            assert shown[f"coverage of {level:.0%} intervals"][0] == f"{coverage:.1%}"
    else:
        index = y = np.searchsorted(estimator.classes_, y)
        linear = linear_classes(x, y, x, 3)
        shares = np.bincount(index) / len(index)
        error, of_linear = (scores.error_rate(p, index) for p in (prediction, linear))
        assert shown["error"] == [f"{e:.1%}" for e in (error, of_linear, 1 - shares.max())]
        entropy = -(shares * np.log(shares)).sum()
        assert shown["NLL"] == both(scores.nll, f"{entropy:.4g}")
        gini = 1 - (shares**2).sum()
        assert shown["Brier"] == both(scores.brier, f"{gini:.4g}")
        assert shown["AUC"] == both(lambda p, y: class_auc(np.asarray(p.probs), y), "0.5")
        assert shown["ECE"][0] == f"{scores.ece(prediction, index):.1%}"
        assert shown["AURC"][0] == f"{scores.aurc(prediction, index):.1%}"


def test_the_confusion_table_counts_the_rows(made, page):
    estimator, schema, frame, _ = made
    if schema.task == "regression":
        return
    y, predicted = schema.target(frame), estimator.predict(schema.encode(frame))
    shown = {row[0]: row[1:] for row in page.rows if len(row) == 4 and row[1].isdigit()}
    for row in estimator.classes_:
        counts = [((y == row) & (predicted == column)).sum() for column in estimator.classes_]
        assert shown[row] == list(map(str, counts))


def test_recall_and_precision_are_those_of_scikit_learn(made, page):
    estimator, schema, frame, _ = made
    if schema.task == "regression":
        return
    x, y = schema.encode(frame), schema.target(frame)
    predicted, probs = estimator.predict(x), estimator.predict_proba(x)
    start = page.rows.index(["class", "rows", "recall", "precision", "AUC"])
    shown = {row[0]: row[1:] for row in page.rows[start + 1 : start + 4]}
    for k, label in enumerate(estimator.classes_):
        recall = recall_score(y, predicted, labels=[label], average="micro")
        precision = precision_score(
            y, predicted, labels=[label], average="micro", zero_division=np.nan
        )
        auc = roc_auc_score(y == label, probs[:, k])
        expected = [f"{(y == label).sum()}", f"{recall:.1%}", f"{precision:.1%}", f"{auc:.4g}"]
        assert shown[label] == [cell.replace("nan%", "\N{EN DASH}") for cell in expected]


def test_the_most_uncertain_rows_are_identified_by_their_lines(made, page):
    estimator, schema, frame, _ = made
    prediction = estimator.predict_distribution(schema.encode(frame))
    is_regression = schema.task == "regression"
    uncertainty = prediction.sd if is_regression else prediction.entropy
    worst = np.argsort(-uncertainty, kind="stable")[:10]
    headers = next(row for row in page.rows if row[:2] == ["line", "observed"])
    rows = [row for row in page.rows if len(row) == len(headers)][1:]
    assert [row[0] for row in rows] == list(map(str, frame.index[worst]))
    assert [row[headers.index("of what")] for row in rows] == frame["of what"].iloc[worst].tolist()
    measure = headers.index("sd" if is_regression else "entropy")
    assert [float(row[measure]) for row in rows] == pytest.approx(uncertainty[worst], abs=0.01)


def test_the_diagnosis_is_shown_as_it_is_printed(made, page):
    estimator, schema, frame, _ = made
    checks = Findings.of(estimator, schema, frame, 0).checks
    start = page.rows.index(["check", "value", "verdict", "meaning", "advice"])
    shown = {row[0]: row[1:] for row in page.rows[start + 1 : start + 1 + len(checks)]}
    assert [check.name for check in checks] == list(shown)
    for check in checks:
        assert shown[check.name] == [check.value, check.verdict, check.meaning, check.advice]
    assert {check.key for check in checks} >= set(NEED_ROWS_OF_FIT)


def test_the_diagnosis_and_the_scores_measure_the_same_intervals(tmp_path):
    estimator, schema, frame = fitted("regression")
    estimator.calibration_ = Calibration.of([0.2] * 99)  # much narrower than those of the mixture
    report.write(tmp_path / "page.html", estimator, schema, frame)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    prediction = estimator.predict_distribution(schema.encode(frame))
    covered = f"{scores.coverage(prediction, schema.target(frame)):.1%}"
    shown = {row[0]: row[1] for row in page.rows if len(row) > 1}
    assert shown["coverage of 90% intervals"] == covered
    assert shown["90% intervals"].startswith(f"cover {covered} of {N}")
    raw = scores.coverage(prediction.calibrated(None), schema.target(frame))
    assert f"{raw:.1%}" != covered


def test_held_out_scores_come_first(quick, tmp_path):
    held_out = HeldOutScores(
        60, 5, {"RMSE": 3.5, "R2": 0.4321}, {"RMSE": 3.75, "R2": 0.25}, {"RMSE": 0.123, "R2": 0.01}
    )
    report.write(tmp_path / "page.html", *quick, held_out=held_out)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.rows[:3] == [
        ["score", "model", "linear"],
        ["RMSE", "3.5 ± 0.12", "3.75"],
        ["R²", "0.4321 ± 0.01", "0.25"],
    ]
    assert "60 held-out rows in 5 folds" in page.texts["scores"]
    assert "43%" in page.texts["header"]


def test_the_linear_model_is_left_out_on_rows_that_may_not_be_those_of_the_fit(quick, tmp_path):
    estimator, schema, _ = quick
    report.write(tmp_path / "page.html", estimator, schema, table(50, seed=1))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.rows[0] == ["score", "model", "constant", "meaning"]
    assert "ridge" not in page.texts["scores"]


def test_the_losses_and_steps_are_those_of_both_fits():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=120), "y": rng.normal(size=120)})
    schema = Schema.of(frame, "y")
    estimator = BBBRegressor(**BUDGET, likelihood="gaussian")
    estimator.fit(schema.encode(frame), schema.target(frame))
    findings = Findings.of(estimator, schema, frame, 0)
    training = model_sections.training(findings).content
    rows = [[cell.content for cell in row][:4] for row in training["table"].rows]
    assert rows == [["without held-out rows", "108", "3", "3"], ["all rows", "120", "1", "1"]]
    assert training["history"].count("<path") > 12
    facts = {n.content: v.content for n, v in model_sections.fitted(findings).content["facts"].rows}
    assert facts["steps"] == "4 in 4 epochs"
    estimator.first_fit_ = ()
    rows = model_sections.training(findings).content["table"].rows
    assert [[cell.content for cell in row][:4] for row in rows] == [["fit", "120", "1", "1"]]


def test_the_effect_of_a_category_is_the_prediction_with_the_others_typical(quick):
    estimator, schema, frame = quick
    frame = frame[(frame["of what"] != "$5$") | (np.arange(N) < 20)]  # the first, but the rarest
    findings = Findings.of(estimator, schema, frame, 0)
    (effect,) = findings.effects()
    assert effect.column.name == "of what"
    counts = frame["of what"].value_counts()
    assert list(counts[effect.at]) == sorted(counts, reverse=True)
    row = frame.iloc[:1].drop(columns="of what")
    for name in (EVIL, "size"):
        row[name] = np.median(schema.encode(frame)[:, schema.inputs.index(name)])
    for k, category in enumerate(effect.at):
        x = schema.encode(row.assign(**{"of what": category}))
        inputs = schema.inputs
        for name in inputs:
            if name == "made" or name.startswith("made "):
                x[:, inputs.index(name)] = findings._typical[inputs.index(name)]
        assert effect.prediction.mean[k] == pytest.approx(estimator.predict(x)[0])


def test_the_page_states_on_which_rows_scores_are_computed(made, page):
    assert (
        f"All scores are computed on the {N} rows of this table. On rows that the model was fitted "
        "to, they are optimistic."
    ) in page.texts["header"]
    assert "The model was fitted to the same number of rows" in page.texts["header"]


def test_checks_that_need_the_rows_of_the_fit_are_not_measured_on_others(quick, tmp_path):
    estimator, schema, _ = quick
    report.write(tmp_path / "page.html", estimator, schema, table(50, seed=1))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert f"The model was fitted to {N} rows, so these are not exactly" in page.texts["header"]
    verdicts = {row[0]: row[1:3] for row in page.rows if len(row) == 5}
    assert all(verdicts[WORDING[key].name] == ["-", "not measured"] for key in NEED_ROWS_OF_FIT)
    assert "scores" not in verdicts


def test_a_large_table_is_sampled_and_the_page_states_so(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(report_findings, "MAX_SAMPLED", 20)
    report.write(tmp_path / "page.html", *quick)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("On 20 rows, drawn at random.") == 3
    assert html.count(f"Shown: 20 of the {N} rows, drawn at random.") == 3
    assert f"Measured on 20 of the {N} rows, drawn at random." in html
    findings = Findings.of(*quick, 0)
    assert len(set(findings.sampled)) == 20
    assert {check.verdict for check in findings.checks} == {"not measured"}


def test_rows_without_a_target_and_unseen_categories_are_noted(quick, tmp_path):
    estimator, schema, frame = quick
    frame = frame.copy()
    frame.loc[2, schema.target_name] = np.nan
    frame.loc[3, "of what"] = "glass"
    report.write(tmp_path / "page.html", estimator, schema, frame)
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).texts["fitted"]
    assert "Left out: 1 row without a target." in text
    assert "glass" in text


def test_automatic_hidden_layers_are_shown_by_their_sizes(quick):
    estimator, schema, frame = quick
    estimator.set_params(hidden="auto")
    facts = model_sections.fitted(Findings.of(estimator, schema, frame, 0)).content["facts"]
    (network,) = [value.content for name, value in facts.rows if name.content == "network"]
    assert network.startswith(f"{len(schema.inputs)} → 3 units, relu; ")


def test_the_same_seed_yields_the_same_page(quick, tmp_path):
    for name in ("one", "two"):
        report.write(tmp_path / name, *quick, seed=3)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("broken", ["os.replace", "pyrobbb.report.model_sections.fitted"])
def test_the_page_is_written_atomically(quick, monkeypatch, tmp_path, broken):
    def fail(*_):
        raise OSError("no space")

    (tmp_path / "page.html").write_text("as it was")
    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="no space"):
        report.write(tmp_path / "page.html", *quick)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "as it was"


def findings_of(x, y, task, predict, seed=0):
    """Return findings about a table of numbers and a function that predicts."""
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    schema = Schema.of(frame.assign(y=np.arange(len(x)) % 2), "y", task)
    estimator = SimpleNamespace(predict_distribution=predict)
    return Findings(estimator, schema, frame, schema.encode(frame), y, (), seed)


def test_permutation_importance_is_the_typical_change_of_the_prediction():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * [1, 2, 1]
    numbers = findings_of(x, x[:, 0], "regression", lambda x: SimpleNamespace(mean=x @ [1, 2, 0]))
    # The difference of two independent rows has twice the variance of one.
    expected = {"x1": 4 * 2**0.5, "x0": 2**0.5, "x2": 0.0}
    assert list(numbers.importance) == list(expected)
    assert numbers.importance == pytest.approx(expected, rel=0.1)

    def certain(x):
        return SimpleNamespace(probs=np.eye(2)[(x[:, 0] > 0) + 0])

    classes = findings_of(x, (x[:, 0] > 0) + 0, "classification", certain)
    # Two independent rows are on different sides in half of the cases.
    assert classes.importance == pytest.approx({"x0": 0.5, "x1": 0, "x2": 0}, abs=0.05)


def test_the_epistemic_share_is_that_of_the_sums():
    x = np.arange(30.0)[:, None] ** 2
    of_sd = SimpleNamespace(aleatoric_sd=np.array([1.0, 2.0]), epistemic_sd=np.array([2.0, 1.0]))
    assert findings_of(x, x[:, 0], "regression", lambda _: of_sd).epistemic_share == 0.5
    parts = SimpleNamespace(
        expected_entropy=np.array([0.5, 0.1]), mutual_information=np.array([0.2, 0.0])
    )
    share = findings_of(x, x[:, 0] % 2, "classification", lambda _: parts).epistemic_share
    assert share == pytest.approx(0.25)


def test_the_seed_decides_on_the_sampled_rows(monkeypatch):
    monkeypatch.setattr(report_findings, "MAX_SAMPLED", 20)
    x = np.arange(50.0)[:, None] ** 2
    one, other, again = (findings_of(x, x[:, 0], "regression", None, s).sampled for s in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert set(one) != set(other)


def test_permutation_importance_is_zero_for_columns_that_are_not_used(quick):
    estimator, schema, frame = quick
    original = estimator.predict_distribution
    first = np.arange(len(schema.inputs)) == 0
    estimator.predict_distribution = lambda x: original(np.where(first, x, 0.0))
    importance = Findings.of(estimator, schema, frame, 0).importance
    assert list(importance) == [column.name for column in schema.columns]
    assert next(iter(importance.values())) > 0
    assert list(importance.values())[1:] == [0.0] * (len(schema.columns) - 1)


def test_on_a_dependence_curve_the_other_columns_are_typical(quick):
    estimator, schema, frame = quick
    predicted = []
    findings = Findings.of(estimator, schema, frame, 0)
    curves = findings.curves()
    assert len(curves) == 3
    original = estimator.predict_distribution
    estimator.predict_distribution = lambda x: predicted.append(x) or original(x)
    findings.curves()
    x = schema.encode(frame)
    inputs = schema.inputs
    for curve, rows in zip(curves, predicted, strict=True):
        varied = inputs.index(curve.column.name)
        assert rows[[0, -1], varied] == pytest.approx(np.quantile(x[:, varied], [0.01, 0.99]))
        for i, name in enumerate(inputs):
            if i == varied:
                continue
            assert len(set(rows[:, i])) == 1
            if name.startswith("of what = "):
                is_mode = name.removeprefix("of what = ") == frame["of what"].mode()[0]
                assert rows[0, i] == is_mode
            elif name == "size is missing" or name.endswith((", sin", ", cos")):
                assert rows[0, i] == 0
            else:
                assert rows[0, i] == np.median(x[:, i])


def test_the_baseline_of_counts_is_a_distribution_of_counts():
    for variance in (9.0, 2.0):
        constant = constant_numbers(4.0, variance, 2, is_count=True)
        assert constant.mean == pytest.approx([4.0, 4.0])
        assert constant.sd**2 == pytest.approx([max(variance, 4.0)] * 2)
        assert np.isfinite(constant.log_prob(np.array([0.0, 3.0]))).all()


def test_a_constant_prediction_scores_as_its_baseline():
    y = np.random.default_rng(0).normal(5, 2, 400)
    constant = constant_numbers(y.mean(), y.var(), len(y), is_count=False)
    compared = {"model": constant, "constant": constant}
    for score in score_numbers(compared, compared, y, y):
        assert score.values["model"] == pytest.approx(score.values["constant"])
    assert score_numbers(compared, compared, y, y)[0].values["constant"] == 0


def test_an_estimator_of_another_task_raises(quick, tmp_path):
    _, schema, frame = quick
    with pytest.raises(ValueError, match="`estimator` must suit the task of `schema`, regression"):
        report.write(tmp_path / "page.html", fitted("classification")[0], schema, frame)


def test_several_targets_raise(quick, tmp_path):
    _, schema, frame = quick
    x, y = schema.encode(frame), schema.target(frame)
    estimator = BBBRegressor(**BUDGET).fit(x, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="`estimator` must predict one target, got 2"):
        report.write(tmp_path / "page.html", estimator, schema, frame)


def test_a_table_without_a_target_raises(quick, tmp_path):
    estimator, schema, frame = quick
    frame = frame.assign(**{schema.target_name: np.nan})
    with pytest.raises(ValueError, match="`frame` must have a row with a target, got none in"):
        report.write(tmp_path / "page.html", estimator, schema, frame)


def test_a_path_that_cannot_be_a_file_raises(quick, tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must lie in a folder that exists"):
        report.write(tmp_path / "no" / "page.html", *quick)
    with pytest.raises(IsADirectoryError, match="`path` must be a file"):
        report.write(tmp_path, *quick)


@pytest.mark.parametrize("with_kl_weights", [True, False])
def test_what_was_tried_is_a_section(quick, tmp_path, with_kl_weights):
    estimator, schema, frame = quick
    rows = [
        [name, (3,), weight, 3] for name in ("gaussian", "<b>") for weight in (np.nan, 0.25, 1.0)
    ]
    table = pd.DataFrame(rows, columns=["likelihood", "hidden", "kl_weight", "epochs"])
    table = table.assign(log_density=[-1.0, -2, -3, -1.5, -4, -5], standard_error=0.25)
    table["is_chosen"] = table.index == 0
    estimator.search_ = table if with_kl_weights else table[table.kl_weight.isna()]
    report.write(tmp_path / "page.html", estimator, schema, frame)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(html)
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert sections == sections_of("regression")
    assert ["gaussian", "3", "3", "\u22121.000", "0.250", "chosen"] in page.rows
    assert ["<b>", "3", "3", "\u22121.500", "0.250", ""] in page.rows
    (section,) = re.findall(r'<section id="search">(.*?)</section>', html, re.DOTALL)
    assert section.count("<figure>") == with_kl_weights
    assert "<b>" not in re.sub("<figcaption>.*?</figcaption>", "", section, flags=re.DOTALL)


def test_numbers_are_formatted_for_comparison():
    assert [number(value) for value in (0.123456, -2.0, 1234567.0, float("nan"))] == [
        "0.1235",
        "\N{MINUS SIGN}2",
        "1,234,567",
        "\N{EN DASH}",
    ]
    assert aligned([12.3456, 1.0, -0.5]) == ["12.35", "1.00", "\N{MINUS SIGN}0.50"]
    assert aligned([1e-9, 2e-9]) == ["1e\N{MINUS SIGN}09", "2e\N{MINUS SIGN}09"]
    assert [cell_text(value) for value in (None, np.nan, pd.NA, pd.NaT, "", 7, 2.5)] == [
        *["(missing)"] * 5,
        "7",
        "2.5",
    ]
    assert len(cell_text("x" * 500)) == MAX_CELL


def browse(page, *options):
    options = [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=2000", *options]
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    ).stdout


@in_a_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page(made, tmp_path, width):
    picture = tmp_path / "page.png"
    browse(made[3], f"--screenshot={picture}", f"--window-size={width},1500")
    pixels = imread(picture)[..., :3]
    assert pixels.shape[1] == width
    assert 0.01 < (pixels.max(-1) < 0.6).mean() < 0.5  # text on the background
    blocks = pixels[:1500].reshape(15, 100, width, 3)
    assert (blocks.std(axis=(1, 2)).max(-1) > 0.02).all()  # not blank anywhere


@in_a_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser_nothing_is_wider_than_the_window(made, tmp_path, width):
    html = made[3].read_text(encoding="utf-8")
    html = re.sub(r"<meta http-equiv[^>]*>", "", html)  # which forbids scripts
    script = "document.title = document.documentElement.scrollWidth + ' of ' + innerWidth"
    page = tmp_path / "page.html"
    page.write_text(html.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    dom = browse(page, "--dump-dom", f"--window-size={width},1500")
    assert re.search(r"<title>(.*?)</title>", dom)[1] == f"{width} of {width}"
    assert re.findall(r'<section id="(\w+)">', dom) == sections_of(made[1].task)
