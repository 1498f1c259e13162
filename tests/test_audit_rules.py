"""Rules: what is one, what an interval says of it, and how often chance passes one that is not kept."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import beta, binom

from sightline.audit import calibration_error
from sightline.audit.result import (
    DuplicateKind,
    DuplicatePair,
    Duplicates,
    Estimate,
    IssueMethod,
    LabelIssueList,
    SplitName,
)
from sightline.audit.rule_metrics import BaseRun, RunNumbers, _held_out, _label_issues, _leaks, measure_rule
from sightline.audit.rules import (
    CheckResult,
    Measured,
    Verdict,
    images_needed,
    judge,
    parse_rule,
    parse_rules,
)
from sightline.errors import InputError
from sightline.predictions import Predictions, score_predictions
from sightline.predictions.scores import Score, Scores
from sightline.stats import difference_interval, exact_interval, wilson_interval

NAMES = ("ant", "bee", "cat")


def predictions_of(correct: np.ndarray, labels: np.ndarray, *, margin: float = 2.0) -> Predictions:
    answers = np.where(correct, labels, (labels + 1) % 3)
    return Predictions(margin * np.eye(3)[answers], labels, NAMES)


def numbers_of(predictions: Predictions) -> RunNumbers:
    """The accuracy alone: the other metrics are dear to draw again and again."""
    share = float(predictions.correct.mean())
    return RunNumbers(predictions, Scores({"accuracy": Score(share, interval="Wilson")}, (), ("accuracy",)))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("accuracy >= 0.9", ("accuracy", "", ">=", 0.9)),
        ("  loss<=1.5 ", ("loss", "", "<=", 1.5)),
        ("leaks == 0", ("leaks", "", "==", 0.0)),
        ("recall[big [red] cat] >= .5", ("recall", "big [red] cat", ">=", 0.5)),
        ("accuracy not worse than BASE by 0.01", ("accuracy", "", "not worse", 0.01)),
        ("loss better than BASE", ("loss", "", "better", 0.0)),
        ("matthews >= -0.5", ("matthews", "", ">=", -0.5)),
    ],
)
def test_a_line_is_a_rule(line, parts):
    rule = parse_rule(line)
    assert (rule.metric, rule.of, rule.relation, rule.bound) == parts
    assert rule.text == line.strip()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("accuracy", "rule 'accuracy' is no rule; write METRIC >= NUMBER"),
        ("accuracy > 0.9", "is no rule"),
        ("accuracy >= 0.9 0.8", "is no rule"),
        ("", "rule '' is no rule"),
        ("accuracy >= 90%", "has 90%; write a share of 1: 0.9 for 90 %"),
        ("accuracy >= nan", "has 'nan' where a number has to be"),
        ("accuracy >= 1_0", "has '1_0' where a number has to be"),
        ("accuracy >= 90", "has 90, and it needs from 0 to 1; write 0.9 for 90 %"),
        ("leaks <= -1", "has -1, and it needs 0 or more"),
        ("accuracy == 0.9", "no sample shows that a share equals a number; write >= or <="),
        ("accuracy not worse than BASE", "says not by how much; write: accuracy not worse than BASE by 0.01"),
        ("accuracy not worse than BASE by -0.01", "has -0.01, and it needs from 0 to 1"),
        ("accuracy not worse than base by 0.01", "is no rule"),
    ],
)
def test_a_line_that_does_not_fit_is_refused_in_one_line(line, said):
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        parse_rule(line)
    assert "\n" not in str(caught.value)


def test_rules_are_a_list_in_which_nothing_is_said_twice():
    with pytest.raises(InputError, match=r"'accuracy >= 0\.8' says again what another rule says"):
        parse_rules(["accuracy >= 0.9", "accuracy >= 0.8"])
    for wrong in ("accuracy >= 0.9", [1]):
        with pytest.raises(InputError, match="rules are a list of lines of text"):
            parse_rules(wrong)
    with pytest.raises(InputError, match="there are no rules"):
        parse_rules([])


@pytest.mark.parametrize(
    ("line", "interval", "verdict"),
    [
        ("accuracy >= 0.9", (0.9, 0.95), "passed"),
        ("accuracy >= 0.9", (0.89, 0.95), "undecided"),
        ("accuracy >= 0.9", (0.8, 0.9), "undecided"),
        ("accuracy >= 0.9", (0.8, 0.89), "failed"),
        ("loss <= 1", (0.5, 1.0), "passed"),
        ("loss <= 1", (1.1, 1.2), "failed"),
        ("leaks == 0", (0.0, 0.0), "passed"),
        ("leaks == 0", (0.0, 2.0), "undecided"),
        ("leaks == 0", (1.0, 2.0), "failed"),
        ("accuracy not worse than BASE by 0.01", (-0.01, 0.02), "passed"),
        ("accuracy not worse than BASE by 0.01", (-0.02, 0.02), "undecided"),
        ("accuracy not worse than BASE by 0.01", (-0.05, -0.02), "failed"),
        ("loss not worse than BASE by 0.1", (-0.3, 0.1), "passed"),
        ("loss not worse than BASE by 0.1", (0.11, 0.3), "failed"),
        ("accuracy better than BASE", (0.0, 0.2), "undecided"),
        ("accuracy better than BASE", (0.001, 0.2), "passed"),
        ("accuracy better than BASE", (-0.2, 0.0), "failed"),
        ("loss better than BASE by 0.1", (-0.3, -0.11), "passed"),
    ],
)
def test_an_interval_passes_fails_or_decides_nothing(line, interval, verdict):
    found = judge(parse_rule(line), Measured(0.0, lambda images: interval, 10, remedy="look"))
    assert (str(found.verdict), found.interval, found.needed) == (verdict, interval, None)
    assert found.note == ("look" if verdict == "undecided" else "")


def test_the_exact_interval_is_that_of_the_beta_and_holds_each_tail():
    for right, n in ((0, 7), (3, 7), (7, 7), (93, 100)):
        low, high = exact_interval(right, n)
        assert low == pytest.approx(beta.ppf(0.025, right, n - right + 1) if right else 0)
        assert high == pytest.approx(beta.ppf(0.975, right + 1, n - right) if right < n else 1)
    for share in (0.5, 0.9, 0.99):
        lows = np.array([exact_interval(k, 100)[0] for k in range(101)])
        highs = np.array([exact_interval(k, 100)[1] for k in range(101)])
        chance = binom.pmf(np.arange(101), 100, share)
        assert chance[lows > share].sum() <= 0.025
        assert chance[highs < share].sum() <= 0.025
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_the_interval_of_two_samples_is_the_papers():
    # Newcombe (1998), table II, method 10: (a) 56/70 and 48/80, (d) 9/10 and 3/10, (g) 10/10 and 0/20.
    for (k_b, n_b, k_a, n_a), ends in (
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
    ):
        assert difference_interval(k_a / n_a, n_a, k_b / n_b, n_b) == pytest.approx(ends, abs=5e-5)


def test_the_images_that_would_decide_are_the_fewest_at_the_same_value():
    rule = parse_rule("accuracy >= 0.9")
    measured = Measured(0.93, lambda m: exact_interval(0.93 * m, m), 200)
    needed = images_needed(rule, measured)
    slow = next(m for m in range(201, 2000) if exact_interval(0.93 * m, m)[0] >= 0.9)
    assert needed is not None
    assert abs(needed - slow) <= 1
    below = Measured(0.85, lambda m: exact_interval(0.85 * m, m), 50)
    found = judge(rule, below)
    assert found.verdict is Verdict.UNDECIDED
    assert rule.verdict(*below.interval(found.needed)) is Verdict.FAILED
    at = judge(rule, Measured(0.9, lambda m: exact_interval(0.9 * m, m), 200))
    assert (at.needed, at.note) == (None, "at this value no number of images decides it")


def passes(line: str, draw, *, times: int = 400) -> tuple[int, int]:
    """How often a rule is passed and failed over draws of (run, base)."""
    rule, rng = parse_rule(line), np.random.default_rng(7)
    verdicts = [judge(rule, measure_rule(rule, *draw(rng))).verdict for _ in range(times)]
    return verdicts.count(Verdict.PASSED), verdicts.count(Verdict.FAILED)


# Each simulated run lies right at the bound of its rule: to pass it is an error, and so is to fail it.
# 400 draws at 5 % give 20 +- 4.4; at the 2.5 % that is meant, 10 +- 3.1.
MOST = 20


@pytest.mark.parametrize(("n", "share"), [(40, 0.9), (200, 0.9), (500, 0.98)])
def test_an_accuracy_at_the_bound_is_hardly_ever_decided(n, share):
    def draw(rng):
        return (numbers_of(predictions_of(rng.random(n) < share, np.arange(n) % 3)),)

    passed, failed = passes(f"accuracy >= {share}", draw)
    assert passed <= MOST
    assert failed <= MOST


def test_a_worst_class_at_the_bound_is_hardly_ever_decided():
    def draw(rng):  # one class at the bound, and all of them there
        labels = np.arange(150) % 3
        shares = np.array([0.8, 0.8, 0.8] if rng.random() < 0.5 else [0.8, 0.97, 0.97])
        return (numbers_of(predictions_of(rng.random(150) < shares[labels], labels)),)

    passed, failed = passes("worst_class >= 0.8", draw)
    assert passed <= MOST
    assert failed <= MOST


@pytest.mark.parametrize("kind", ["over", "both ways", "few and sure"])
def test_a_calibration_error_at_the_bound_is_hardly_ever_decided(kind):
    def draw(rng):
        n = 30 if kind == "few and sure" else 600
        confidence = rng.uniform(0.6, 0.95, n) if n > 30 else np.full(n, 0.999)
        sign = np.where(np.floor(confidence * 15) % 2, -1, 1) if kind == "both ways" else -1
        correct = rng.random(n) < confidence + 0.05 * sign
        labels = np.where(correct, 0, 1)
        made = Predictions.from_probabilities(np.stack([confidence, 1 - confidence], 1), labels, ("x", "y"))
        return (numbers_of(made),)

    passed, failed = passes("calibration_error <= 0.05", draw)
    assert passed <= MOST
    assert failed <= MOST


def test_a_calibrated_model_passes_with_some_hundred_images():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.8, 1, 800)
    labels = np.where(rng.random(800) < confidence, 0, 1)
    made = Predictions.from_probabilities(np.stack([confidence, 1 - confidence], 1), labels, ("x", "y"))
    rule = parse_rule("calibration_error <= 0.07")
    found = judge(rule, measure_rule(rule, numbers_of(made)))
    assert found.verdict is Verdict.PASSED
    assert found.value == pytest.approx(calibration_error(made.confidence, made.correct))


def test_a_resampled_metric_at_the_bound_is_hardly_ever_decided_and_few_mistakes_decide_nothing():
    labels = np.arange(90) % 3
    shares = np.array([0.7, 0.8, 0.9])
    # All mistakes go to the next class, so recall and precision of each class are known, and their F1.
    taken = shares + np.roll(1 - shares, 1)
    true = float(np.mean(2 * shares / (1 + taken)))

    def draw(rng):
        made = predictions_of(rng.random(90) < shares[labels], labels)
        return (RunNumbers(made, score_predictions(made, resamples=200)),)

    passed, failed = passes(f"macro_f1 >= {true}", draw, times=200)
    assert passed <= MOST / 2
    assert failed <= MOST / 2
    sure = predictions_of(np.arange(90) > 2, labels)
    rule = parse_rule("macro_f1 >= 0.5")
    found = judge(rule, measure_rule(rule, RunNumbers(sure, score_predictions(sure, resamples=50))))
    assert found.verdict is Verdict.UNDECIDED
    assert found.note == "a bootstrap needs 10 right and wrong images, and there are 3"


@pytest.mark.parametrize("shared", [True, False])
def test_a_loss_as_large_as_the_margin_hardly_ever_passes(shared):
    labels = np.arange(300) % 3

    def draw(rng):  # right under both, only the base, only the run, neither
        cells = rng.choice(4, 300, p=[0.80, 0.08, 0.03, 0.09])
        run = predictions_of(np.isin(cells, (0, 2)), labels)
        if not shared:
            cells = rng.choice(4, 300, p=[0.80, 0.08, 0.03, 0.09])
        base = predictions_of(np.isin(cells, (0, 1)), labels)
        rows = np.arange(300 if shared else 0)
        return numbers_of(run), BaseRun(base, rows, rows)

    passed, failed = passes("accuracy not worse than BASE by 0.05", draw)
    assert passed <= MOST
    assert failed <= MOST


def test_a_pair_is_measured_on_the_shared_images_with_the_runs_labels():
    labels = np.array([0, 1, 2, 0, 1, 2])
    base = predictions_of(np.array([1, 1, 0, 1, 0, 1], bool), labels)
    run = predictions_of(np.array([1, 1, 1, 0], bool), labels[[3, 2, 1, 0]])
    shared = BaseRun(base, rows=np.array([0, 1, 2]), own=np.array([3, 2, 1]))
    rule = parse_rule("accuracy not worse than BASE by 0.5")
    found = measure_rule(rule, numbers_of(run), shared)
    assert found.value == pytest.approx((2 - 2) / 3)
    assert (found.images, found.note) == (3, "paired on 3 shared images")
    relabelled = Predictions(
        run.logits, np.array([0, 2, 0, 0]), NAMES
    )  # the run was right about cat, not bee
    found = measure_rule(rule, numbers_of(relabelled), shared)
    assert found.value == pytest.approx((1 - 1) / 3)
    assert found.note.endswith("; of 1 the label changed, and the new one counts")
    few = BaseRun(base, rows=np.array([0]), own=np.array([3]))
    assert measure_rule(rule, numbers_of(run), few).note == "two samples (1 of 4 images are in both)"


def test_a_resampled_change_is_paired():
    rng, labels = np.random.default_rng(0), np.arange(300) % 3
    cells = rng.choice(4, 300, p=[0.7, 0.05, 0.15, 0.1])
    base, run = (predictions_of(np.isin(cells, right), labels) for right in ((0, 1), (0, 2)))
    rows = np.arange(300)
    rule = parse_rule("macro_f1 better than BASE")
    numbers = RunNumbers(run, score_predictions(run, resamples=20))
    found = measure_rule(rule, numbers, BaseRun(base, rows, rows))
    scores = [score_predictions(one, resamples=20).overall["macro_f1"].value for one in (base, run)]
    assert found.value == pytest.approx(scores[1] - scores[0])
    assert judge(rule, found).verdict is Verdict.PASSED
    apart = measure_rule(rule, numbers, BaseRun(base, rows[:0], rows[:0]))
    widths = [np.diff(one.interval(300))[0] for one in (found, apart)]
    assert widths[0] < widths[1]
    same = measure_rule(rule, numbers, BaseRun(run, rows, rows))
    assert judge(rule, same).note.endswith(
        "a bootstrap needs 10 images that only one run gets right, and there are 0"
    )


def test_what_the_run_does_not_have_is_named():
    run = numbers_of(predictions_of(np.ones(9, bool), np.arange(9) % 3))
    rows = np.arange(9)
    for line, said in (
        ("acuracy >= 0.9", "names 'acuracy', which this run does not have; did you mean 'accuracy'?"),
        ("recall[dog] >= 0.9", "names the class 'dog'; known: ant, bee, cat"),
        ("leaks not worse than BASE by 1", "leaks cannot be compared with BASE; accuracy, recall[CLASS] and"),
        ("f1[ant] better than BASE", "of a class only recall can be compared with BASE"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            measure_rule(parse_rule(line), run, BaseRun(run.predictions, rows, rows))
    with pytest.raises(InputError, match="needs a run to compare with; name it with --against BASE"):
        measure_rule(parse_rule("accuracy better than BASE"), run)


def test_what_was_not_measured_or_has_no_interval_is_undecided_and_says_what_to_do():
    run = numbers_of(predictions_of(np.ones(9, bool), np.arange(9) % 3))
    for line, note in (
        ("leaks == 0", "near-duplicates were not looked for; sightline audit RUN"),
        ("label_issues <= 3", "labels were not judged; sightline audit RUN"),
        ("worst_slice >= 0.5", "no slices were looked for; sightline audit RUN"),
        ("hardness <= 0.5", "a metric of the recipe's own; it has no interval"),
    ):
        rule = parse_rule(line)
        numbers = RunNumbers(run.predictions, run.scores, own={"hardness": 0.25})
        found = judge(rule, measure_rule(rule, numbers))
        assert (found.verdict, found.note, found.needed) == (Verdict.UNDECIDED, note, None)


class _Audit:
    """The parts of an audit that a rule reads."""

    def __init__(self, **parts):
        self.__dict__.update(parts)


def with_audit(**parts) -> RunNumbers:
    run = numbers_of(predictions_of(np.ones(9, bool), np.arange(9) % 3))
    return RunNumbers(run.predictions, run.scores, audit=_Audit(**parts))  # pyright: ignore


def test_leaks_count_from_what_is_sure_to_what_was_found():
    def found(leaked: int, by_chance: float, exact: int) -> tuple[float, float]:
        kinds = [DuplicateKind.EXACT] * exact + [DuplicateKind.ALTERED] * (leaked - exact)
        pairs = tuple(
            DuplicatePair(SplitName.TRAIN, 0, SplitName.TEST, k, 1.0, kind, True)
            for k, kind in enumerate(kinds)
        )
        duplicates = Duplicates(leaked, pairs, by_chance, leaked, 1, None)
        measured = _leaks(with_audit(duplicates=duplicates))
        assert measured.value == leaked
        return measured.interval(9)

    assert found(0, 0.4, 0) == (0, 0)
    assert found(2, 0.4, 0) == (0, 2)  # a count with the mean 0.4 is over 2 in 0.8 % of cases
    assert found(2, 0.4, 1) == (1, 2)
    assert found(9, 0.4, 0) == (7, 9)
    assert found(3, 0.0, 0) == (3, 3)


def test_label_issues_count_the_flagged_labels_that_are_wrong():
    def one(flagged, precision=None):
        estimate = None if precision is None else Estimate(0.8, precision)
        return LabelIssueList(IssueMethod.WITNESSES, flagged, None, (), precision=estimate)

    def ends(test, train):
        measured = _label_issues(with_audit(label_issues=_Audit(test=test, train=train)))
        return measured.value, measured.interval(9)

    assert ends(one(0), None) == (0, (0, 0))
    assert ends(one(12), one(0)) == (12, (0, 12))
    value, (low, high) = ends(one(20, (0.6, 0.9)), one(10))
    assert (value, low, high) == (pytest.approx(26), pytest.approx(12), pytest.approx(28))


def test_the_images_of_a_wilson_interval_are_found_again():
    for wrong, n in ((0, 11), (5, 40), (20, 40), (33, 57)):
        assert _held_out(wrong / n, wilson_interval(wrong, n), 2 * n) == n


def test_one_failed_rule_fails_and_one_undecided_leaves_it_open():
    def result(*verdicts):
        measured = {"passed": (0.95, 0.99), "failed": (0.1, 0.2), "undecided": (0.5, 0.95)}
        rule = parse_rule("accuracy >= 0.9")
        checked = tuple(
            judge(rule, Measured(0.9, lambda m, one=one: measured[one], 9, remedy="-")) for one in verdicts
        )
        found = CheckResult("run", None, checked)
        return str(found.verdict), found.exit_code, found.to_dict()["verdict"]

    assert result("passed", "passed") == ("passed", 0, "passed")
    assert result("passed", "undecided") == ("undecided", 4, "undecided")
    assert result("undecided", "failed", "passed") == ("failed", 3, "failed")
