"""Every file that a run's folder can hold: what it is called, what it is, and the schema of its content."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.audit.result import SCHEMA as AUDIT_SCHEMA
from sightline.faithfulness.result import SCHEMA as FAITHFULNESS_SCHEMA
from sightline.files import LOCK, SCHEMA


@dataclass(frozen=True)
class Artifact:
    """A file of a run.

    Attributes:
        name: Its name in the run's folder; of pictures, that of their folder.
        content: What it holds, in words.
        schema: The number that it carries, None where its format has no place for one.
    """

    name: str
    content: str
    schema: int | None = None


RECIPE = "recipe.toml"
ENVIRONMENT = "environment.json"
FIXES = "fixes.json"
DATA_CARD = "data.json"
RANGE_TEST = "range_test.json"
RANGE_TEST_TABLE = "range_test.csv"
CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
STEPS = "steps.csv"
DYNAMICS = "dynamics.npz"
OUT_OF_FOLD = "out_of_fold.parquet"
MODEL_CARD = "model.json"
WEIGHTS = "model.safetensors"
PREDICTIONS = "predictions.parquet"
TRAIN_PREDICTIONS = "train_predictions.parquet"
FEATURES = "features.npz"
GIVEN_DATA = "data.npz"
GIVEN_LABELS = "labels.csv"
METRICS = "metrics.json"
EXPLANATIONS = "explanations.npz"
EXPLANATIONS_CARD = "explanations.json"
FAITHFULNESS = "faithfulness.json"
SAMPLES = "samples.npz"
AUDIT = "audit.json"
AUDIT_TEST = "audit_test.parquet"
AUDIT_TRAIN = "audit_train.parquet"
AUDIT_NEIGHBORS = "audit_neighbors.npz"
GALLERY = "gallery.npz"
FIGURES = "figures"
EXPLAINED = "explained"
REPORT = "report.html"

ARTIFACTS: dict[str, Artifact] = {
    artifact.name: artifact
    for artifact in (
        Artifact(RECIPE, "the recipe with every default filled in; it makes a folder that of a run"),
        Artifact(ENVIRONMENT, "versions, hardware, threads, command and time of the start", SCHEMA),
        Artifact(FIXES, "the decisions that the data was changed by, with a version of their own"),
        Artifact(DATA_CARD, "classes, counts and statistics of the data set", SCHEMA),
        Artifact(RANGE_TEST, "what the learning-rate range test suggests", SCHEMA),
        Artifact(RANGE_TEST_TABLE, "its losses by learning rate"),
        Artifact(CHECKPOINT, "the state from which training continues"),
        Artifact(HISTORY, "a row per epoch"),
        Artifact(STEPS, "a row per training step"),
        Artifact(DYNAMICS, "margin and probability of each training image in each epoch"),
        Artifact(
            OUT_OF_FOLD,
            "of a probe, or of a head that began as one: each training image by a fit that has not seen it",
            SCHEMA,
        ),
        Artifact(MODEL_CARD, "how to make the network that the weights belong to", SCHEMA),
        Artifact(WEIGHTS, "the trained weights"),
        Artifact(PREDICTIONS, "label and logits of each test image", SCHEMA),
        Artifact(TRAIN_PREDICTIONS, "the same of each training image, where they were given", SCHEMA),
        Artifact(FEATURES, "features of the images, where they were given"),
        Artifact(GIVEN_DATA, "the data set, where it was given as arrays"),
        Artifact(GIVEN_LABELS, "the labels, where they were given as an array without pictures"),
        Artifact(METRICS, "accuracy, loss and times", SCHEMA),
        Artifact(EXPLANATIONS, "maps of some mistakes and some correct predictions"),
        Artifact(EXPLANATIONS_CARD, "the method and the layers of these maps", SCHEMA),
        Artifact(FAITHFULNESS, "how faithful the methods are for this model", FAITHFULNESS_SCHEMA),
        Artifact(SAMPLES, "training images as they are and augmented"),
        Artifact(AUDIT, "what the audit found", AUDIT_SCHEMA),
        Artifact(AUDIT_TEST, "what it found of each test image"),
        Artifact(AUDIT_TRAIN, "what it found of each training image"),
        Artifact(AUDIT_NEIGHBORS, "the training images nearest to test images"),
        Artifact(GALLERY, "small pictures and maps for the page"),
        Artifact(FIGURES, "the charts of the report as pictures"),
        Artifact(EXPLAINED, "heat maps of `sightline explain`"),
        Artifact(REPORT, "the page"),
        Artifact(LOCK, "which process writes into the folder, while one does", SCHEMA),
    )
}
