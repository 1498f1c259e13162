"""What an audit finds, as types: what `audit.json` holds and the report shows.

    result = sightline.load_run("runs/latest").audit.result
    result.calibration.ece
    [fix.title for fix in result.fixes if fix.kind is FixKind.RELABEL]

Plain Python values only: `audit.json` is written and read by one adapter, `ADAPTER`, which also checks it.
Shares and probabilities are in [0, 1] where nothing else is stated, intervals are (low, high) at 95 %, images
are named by their index in their split. What cannot be computed is None. Tables with a row for each image are
in `record.Audit`.

Every enumeration that the audit, its file and the report have in common is defined here and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

SCHEMA = 2
"""Of `audit.json`; 1 was version 0.1, which did not write it."""

Interval = tuple[float, float]
_CHECKED: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}


class Cause(StrEnum):
    """Why a mistake happened, in the order in which one with several causes is assigned.

    What has to be settled first comes first. Faults of the data come before faults of the model: if the label
    is wrong there is no mistake to explain, and what has a near-duplicate in training should not have been
    counted. Then a narrow cause before a broad one: a shortcut is confirmed evidence about few images; doubt
    about the image says more than belonging to a pair of classes that is often confused, which is true of
    many images for many reasons.
    """

    LABEL_ISSUE = "label issue"
    NEAR_DUPLICATE = "near-duplicate in training"
    SHORTCUT = "shortcut"
    AMBIGUOUS = "ambiguous"
    CONFUSED_PAIR = "confused pair"
    UNEXPLAINED = "unexplained"


class DifficultyKind(StrEnum):
    """Kinds of images that are worth a look; an image is of one kind at most."""

    AMBIGUOUS = "ambiguous"
    HARD = "hard but right"
    EASY = "easy but wrong"


class WarningKind(StrEnum):
    """What a warning is about; the report links it to the section of that subject."""

    LEAK = "leak"
    CALIBRATION = "calibration"
    SHORTCUT = "shortcut"
    NOT_AVAILABLE = "not available"


class FixKind(StrEnum):
    """What to do: the data first, then what teaches the model, then how its answers are used."""

    RELABEL = "relabel"
    DROP = "drop"
    COLLECT = "collect"
    TEMPERATURE = "temperature"
    THRESHOLD = "threshold"


class Action(StrEnum):
    """What a reader decides about one image. "keep": somebody looked, and the label is right."""

    RELABEL = "relabel"
    KEEP = "keep"
    DROP = "drop"


class DuplicateKind(StrEnum):
    """How two near-duplicates differ: not in a byte, by their handedness, in any other way."""

    EXACT = "exact"
    MIRRORED = "mirrored"
    ALTERED = "altered"


class SplitName(StrEnum):
    """The splits of a data set."""

    TRAIN = "train"
    TEST = "test"


class IssueMethod(StrEnum):
    """Where a list of label issues comes from."""

    CONFIDENT_LEARNING = "confident learning"
    MARGIN = "area under the margin"
    FOLDS = "cross-validation"
    WITNESSES = "the model and a probe on frozen features"
    PROBE = "a probe that has not seen the label"


class IssueClaim(StrEnum):
    """What a list of label issues claims; the list itself is always there."""

    WRONG = "probably wrong"
    LOOK = "worth a look"
    NOTHING = "nothing stands out"
    ONE_WITNESS = "one witness"
    NOT_LEARNT = "not learnt enough"


@dataclass(frozen=True, config=_CHECKED)
class TtaAccuracy:
    """Accuracy of the mean over `passes` versions of each image, the image itself among them."""

    passes: int
    value: float


@dataclass(frozen=True, config=_CHECKED)
class Accuracy:
    """Share of the n test images that are right. tta: with test-time augmentation, None without."""

    value: float
    interval: Interval
    n: int
    tta: TtaAccuracy | None


@dataclass(frozen=True, config=_CHECKED)
class ReliabilityBin:
    """Test images with a confidence from low to high. confidence, accuracy: means, None for an empty bin."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None
    interval: Interval


@dataclass(frozen=True, config=_CHECKED)
class Calibration:
    """How far confidence is from accuracy, and what one temperature does about it.

    Attributes:
        ece: Expected calibration error, 15 bins of one width.
        ece_equal_mass: The same with bins of about equally many images.
        noise_mean: What a calibrated model with these confidences would show on the average.
        noise_high: What it would exceed in 5 of 100 cases: an error up to here is within noise.
        nll: Mean cross-entropy, in nats.
        temperature: To divide the logits by, fitted to all images; None where none can be fitted.
        ece_after: Calibration error on images that the temperature was not fitted to.
        nll_after: Cross-entropy on images that the temperature was not fitted to.
        reliability: The bins of the reliability diagram, in ascending order.
    """

    ece: float
    ece_equal_mass: float
    noise_mean: float
    noise_high: float
    nll: float
    temperature: float | None
    ece_after: float | None
    nll_after: float | None
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, config=_CHECKED)
class RiskCurve:
    """Error rate (risk) of the images that are accepted at each threshold, the highest threshold first."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    threshold: tuple[float, ...]


@dataclass(frozen=True, config=_CHECKED)
class Threshold:
    """A threshold that was chosen on one half of the test images, and what it gave on the held-out half.

    Attributes:
        wanted_error: The error rate that was wanted.
        threshold: Accept confidence >= threshold.
        coverage: Share of the held-out half that is accepted.
        error: Error rate among those.
        interval: Of `error` (Wilson).
        bound: Error rate that is exceeded with a probability of at most 5 % (Clopper-Pearson, one-sided).
        guaranteed: bound <= wanted_error, which holds for new images that are drawn as these were.
    """

    wanted_error: float
    threshold: float
    coverage: float
    error: float
    interval: Interval
    bound: float
    guaranteed: bool


@dataclass(frozen=True, config=_CHECKED)
class Selective:
    """What it costs to answer only when sure: areas under two risk-coverage curves, the curve, thresholds."""

    aurc: float
    augrc: float
    curve: RiskCurve
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True, config=_CHECKED)
class ClassCoverage:
    """Share of the sets of a class's images that hold the class; None for a class without images."""

    label: int
    count: int
    realised: float | None
    interval: Interval


@dataclass(frozen=True, config=_CHECKED)
class ConformalSets:
    """Sets of classes with a threshold from one half of the test images, checked on the held-out half.

    Attributes:
        coverage: Share of the sets that is wanted to hold the label.
        threshold: A set has every class with 1 - p <= threshold.
        realised: Share of the sets that holds the label.
        interval: Of `realised` (Wilson).
        mean_size: Classes in a set, on the average.
        single: Share of the sets with one class.
        empty: Share of the sets without a class.
        per_class: A row for each class; the promise is for the mean over all classes, not for each.
    """

    coverage: float
    threshold: float
    realised: float
    interval: Interval
    mean_size: float
    single: float
    empty: float
    per_class: tuple[ClassCoverage, ...]


@dataclass(frozen=True, config=_CHECKED)
class ConfusedPair:
    """Images of class `true` that are taken for class `predicted`.

    Attributes:
        count: How many there are.
        share: Of the images of class `true`.
        interval: Of `share` (Wilson).
        median_loss: Of these images; high where the model is sure of the wrong answer.
        reverse: How often class `predicted` is taken for class `true`.
        p_direction: Two-sided p of "both ways are equally likely", not corrected.
    """

    true: int
    predicted: int
    count: int
    share: float
    interval: Interval
    median_loss: float
    reverse: int
    p_direction: float | None


@dataclass(frozen=True, config=_CHECKED)
class DifficultyRow:
    """Test images of one kind. wrong: how many are mistakes. images: the clearest first, 200 at most."""

    kind: DifficultyKind
    count: int
    wrong: int
    images: tuple[int, ...]


@dataclass(frozen=True, config=_CHECKED)
class Difficulty:
    """Images that are ambiguous, hard or easy, and the bounds that made them.

    Attributes:
        kinds: A row for each of `DifficultyKind`.
        ambiguity_from: Ambiguity from which on an image is ambiguous.
        hard_up_to: Confidence up to which a right answer is hard.
        easy_from: Confidence from which on a mistake is easy.
    """

    kinds: tuple[DifficultyRow, ...]
    ambiguity_from: float
    hard_up_to: float
    easy_from: float


@dataclass(frozen=True, config=_CHECKED)
class LabelIssue:
    """An image whose label may be wrong.

    Attributes:
        index: In its split.
        label: The class that it is labelled.
        suggested: The class that the model names instead.
        label_quality: Low is bad; None for an image that was not trained on.
        flagged: On the short list, to be read first.
    """

    index: int
    label: int
    suggested: int
    label_quality: float | None
    flagged: bool


@dataclass(frozen=True, config=_CHECKED)
class Estimate:
    """A number that was estimated, and its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, config=_CHECKED)
class PlantedCheck:
    """What a list found of wrong labels that were planted among these very labels.

    Attributes:
        share: Of the labels that were planted wrong in each round.
        rounds: How often.
        planted: In all rounds.
        listed: Labels that were flagged in all rounds, without those that are flagged with nothing planted.
        found: How many of those were planted.
        precision: Share of the listed ones that were planted, a lower end for that of the list, as all others
            count as right; None where nothing was listed.
        recall: Share of the planted ones that were listed.
    """

    share: float
    rounds: int
    planted: int
    listed: int
    found: int
    precision: Estimate | None
    recall: Estimate


@dataclass(frozen=True, config=_CHECKED)
class LabelIssueList:
    """Labels of one split, the most doubtful first.

    Attributes:
        method: What ranks them.
        flagged: How many images are flagged.
        estimated: How many of the flagged labels are estimated to be wrong; None where that is not known.
        rows: The flagged images, at least ten and at most 200 rows.
        claim: What may be said of the flagged ones. It is "probably wrong" only where witnesses that have not
            seen the label agree and the lower end of `precision` is above 1/2.
        precision: Share of the flagged labels that is wrong, read off where the witnesses are surest, its
            lower end raised by `planted` where there is one; None without flags or estimate.
        witnesses: Who contradicts the flagged labels, in words.
        planted: What came of planting wrong labels here; None where that was not done.
    """

    method: IssueMethod
    flagged: int
    estimated: float | None
    rows: tuple[LabelIssue, ...]
    claim: IssueClaim = IssueClaim.LOOK
    precision: Estimate | None = None
    witnesses: tuple[str, ...] = ()
    planted: PlantedCheck | None = None


@dataclass(frozen=True, config=_CHECKED)
class Agreement:
    """The overlap of the tops of two rankings of the same images.

    Attributes:
        top: How many images of each were taken.
        both: Images that both list, in the order of their mean rank.
        jaccard: |both| / |either|.
        expected_by_chance: The jaccard of two lists whose overlap is that of random lists.
    """

    top: int
    both: tuple[int, ...]
    jaccard: float
    expected_by_chance: float


@dataclass(frozen=True, config=_CHECKED)
class LabelIssues:
    """Doubtful labels of both splits.

    Attributes:
        test: By the model's probabilities.
        train: By the training dynamics; without them, by folds; None where there is neither.
        folds: By models that had not seen the image, as a second list next to that of the dynamics.
        agreement: Of `train` and `folds`, None unless there are both.
    """

    test: LabelIssueList
    train: LabelIssueList | None
    folds: LabelIssueList | None
    agreement: Agreement | None


@dataclass(frozen=True, config=_CHECKED)
class DuplicatePair:
    """Two images that are near-duplicates, training before test. similarity: in (0, 1]."""

    a_split: SplitName
    a: int
    b_split: SplitName
    b: int
    similarity: float
    kind: DuplicateKind
    same_label: bool


@dataclass(frozen=True, config=_CHECKED)
class AccuracyWithout:
    """Accuracy on the n test images that are left when some are left out."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True, config=_CHECKED)
class Duplicates:
    """Near-duplicates within and between the splits.

    Attributes:
        count: Pairs.
        pairs: The most alike first, 200 at most.
        expected_by_chance: How many of the pairs are expected to be no copies.
        leaked: Test images with a near-duplicate in training.
        groups: Groups of images that are all alike.
        accuracy_without: Without the leaked images; None when nothing is left.
    """

    count: int
    pairs: tuple[DuplicatePair, ...]
    expected_by_chance: float
    leaked: int
    groups: int
    accuracy_without: AccuracyWithout | None


@dataclass(frozen=True, config=_CHECKED)
class Slice:
    """A kind of test images that is wrong more often than others, confirmed on the held-out half.

    Attributes:
        name: In words.
        size: Images in both halves.
        error: Error rate in the held-out half.
        interval: Of `error` (Wilson).
        rest: Error rate of the images there that it is compared with.
        p: Fisher's exact test, corrected for all slices tested.
        evidence: A sentence.
        rows: Its images, 200 at most.
        shortcut: A predicted class goes with evidence where no object has to be.
    """

    name: str
    size: int
    error: float
    interval: Interval
    rest: float
    p: float
    evidence: str
    rows: tuple[int, ...]
    shortcut: bool


@dataclass(frozen=True, config=_CHECKED)
class CorruptionError:
    """Error rate under one corruption. increase: over that on the clean images."""

    name: str
    severity: int
    error: float
    interval: Interval
    increase: float


@dataclass(frozen=True, config=_CHECKED)
class Robustness:
    """Error rates of the same n images, as they are and corrupted.

    Attributes:
        clean: On the images as they are.
        interval: Of `clean` (Wilson).
        n: Images.
        rows: One for each corruption and severity.
        mean: Averaged over severities, then over corruptions: the mean corruption error of Hendrycks &
            Dietterich (2019), not divided by that of AlexNet, which is another model's.
        increase: mean - clean, which they call relative.
        increase_interval: From the spread of the n paired differences.
    """

    clean: float
    interval: Interval
    n: int
    rows: tuple[CorruptionError, ...]
    mean: float
    increase: float
    increase_interval: Interval


@dataclass(frozen=True, config=_CHECKED)
class CauseShare:
    """The mistakes of one cause.

    Attributes:
        cause: Which one.
        count: Mistakes that are assigned to it.
        share: Of all mistakes.
        interval: Of `share` (Wilson).
        flagged: Mistakes that have the cause at all, assigned to it or not.
        overlaps: How many of those have another cause as well, by that cause; zeros are left out.
    """

    cause: Cause
    count: int
    share: float
    interval: Interval
    flagged: int
    overlaps: dict[Cause, int]


@dataclass(frozen=True, config=_CHECKED)
class ErrorBudget:
    """The mistakes by cause, in the order of `Cause`; the counts add up to `mistakes`."""

    mistakes: int
    causes: tuple[CauseShare, ...]


@dataclass(frozen=True, config=_CHECKED)
class Gain:
    """An expected gain and its range, in points (hundredths) of `unit`; negative where a number falls."""

    value: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True, config=_CHECKED)
class Fix:
    """One action.

    Attributes:
        kind: What to do.
        title: The same as a short sentence.
        why: The evidence, in sentences.
        gain: What it may bring; None where it is not known without training again.
        images: Those that it is about, the most urgent first.
        split: Of these images.
        how: What to type or to do.
    """

    kind: FixKind
    title: str
    why: str
    gain: Gain | None
    images: tuple[int, ...]
    split: SplitName
    how: str


@dataclass(frozen=True, config=_CHECKED)
class AuditWarning:
    """What makes the numbers mean less than they seem to."""

    kind: WarningKind
    text: str


@dataclass(frozen=True, config=_CHECKED)
class Finding:
    """On generated data: what was measured, what came, what to hold it against, what it means."""

    what: str
    value: str
    expected: str
    meaning: str


@dataclass(frozen=True, config=_CHECKED)
class AuditResult:
    """Everything that an audit found.

    Attributes:
        schema: Of the file that holds it.
        duplicates: None without images.
        conformal: Sets for several wanted coverages; empty with fewer than two test images.
        confused_pairs: The most frequent first, 200 at most.
        slices: In the order of their p-values.
        robustness: None where errors under corruption were not measured.
        fixes: In the order to do them.
        ground_truth: Findings next to what was planted; empty for data that is not generated.
    """

    schema: int
    accuracy: Accuracy
    calibration: Calibration
    selective: Selective
    conformal: tuple[ConformalSets, ...]
    confused_pairs: tuple[ConfusedPair, ...]
    difficulty: Difficulty
    label_issues: LabelIssues
    duplicates: Duplicates | None
    slices: tuple[Slice, ...]
    robustness: Robustness | None
    error_budget: ErrorBudget
    fixes: tuple[Fix, ...]
    warnings: tuple[AuditWarning, ...]
    ground_truth: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return ADAPTER.dump_python(self, mode="json")


ADAPTER = TypeAdapter(AuditResult)
"""Writes and reads `audit.json`."""
