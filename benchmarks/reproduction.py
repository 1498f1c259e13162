"""Write docs/reproduction/RECIPE.md from the folder of a finished run: log, curves, mistakes, heat maps.

    python benchmarks/reproduction.py runs/resnet18-cutout16-1

Each figure says which figure of the source it answers, and is a WebP of less than 150 KB. Nothing is trained;
the model of the run is opened to draw heat maps at several layers.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import sightline as sl
from sightline.data import preview_augmentation
from sightline.predictions import confused_pairs
from sightline.report.plots import Plot

MOST_BYTES = 150_000
WIDEST = 1400  # pixels
PAGES = Path(__file__).resolve().parents[1] / "docs" / "reproduction"

# What the source of each recipe shows, by the name of our figure.
ANSWERS: dict[str, dict[str, str]] = {
    "resnet18-cutout16": {
        "samples": "example images from the training set",
        "augmented": "example of augmented images",
        "range_test": "learning rate range test, suggested rate 3.85E-01",
        "learning_rate": "learning rate update at the time of training",
        "curves": "train and test loss and accuracy curve",
        "correct_maps": "Grad-CAM images for 10 correct predictions",
        "confusion": "confusion matrix of 912 wrong classifications",
        "mistakes": "10 misclassified images in descending order of loss",
        "mistakes_maps_main": "Grad-CAM images for the same 10 misclassified images",
    },
    "custom-resnet-24": {
        "augmented": "CIFAR-10 augmentation visualization",
        "curves": "custom ResNet learning curve",
        "mistakes": "custom ResNet misclassified images",
        "mistakes_maps_main": "Grad-CAM of the custom ResNet",
    },
    "resnet18-colour": {
        "samples": "few samples in the dataset",
        "summary": "ResNet18 model summary",
        "range_test": "learning rate finder curve, best rate 6.57E-02",
        "log": "train log per epoch",
        "curves": "model statistics plot",
        "mistakes": "collection of misclassified predictions",
        "mistakes_maps_main": "misclassified predictions with Grad-CAM of layer 3, 8x8",
    },
    "resnet18-crop-cutout": {
        "samples": "figure 1, random images from the dataset",
        "augmented_one": "figure 2, transformation applied different times on the same image",
        "summary": "figure 3, model summary",
        "log": "figures 4.1 to 4.3, training log of 20 epochs",
        "curves": "figure 5, plot for loss and accuracy",
        "class_accuracy": "figure 6, accuracy per class",
        "mistakes": "figure 7, misclassified images",
        "mistakes_maps_main": "figures 8.1 and 8.2, Grad-CAM on misclassified images",
    },
    "resnet18-step": {
        "log": "training log, best validation accuracy 76 %",
        "curves": "validation loss and accuracy progression",
        "mistakes": "misclassified images gallery",
        "mistakes_maps_main": "Grad-CAM outputs gallery",
    },
    "resnet18-adam": {
        "curves": "validation loss and accuracy progression, second run of the code",
        "mistakes": "misclassified images gallery, second run of the code",
        "mistakes_maps_main": "Grad-CAM outputs gallery, second run of the code",
    },
}


class Page:
    """Lines of a Markdown page and the pictures next to it."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder, self.recipe = folder, recipe
        self.lines: list[str] = []
        (folder / recipe).mkdir(parents=True, exist_ok=True)

    def heading(self, text: str, level: int = 2) -> None:
        self.lines += ["", f"{'#' * level} {text}", ""]

    def answers(self, name: str) -> None:
        """Say which figure of the source the next one answers, if it answers one."""
        if source := ANSWERS.get(self.recipe, {}).get(name):
            self.lines += [f"Answers the source's: {source}.", ""]

    def figure(self, name: str, plot: Plot, text: str) -> None:
        picture = webp(plot)
        (self.folder / self.recipe / f"{name}.webp").write_bytes(picture)
        self.answers(name)
        self.lines += [f"![{text}]({self.recipe}/{name}.webp)", ""]

    def table(self, table: pd.DataFrame) -> None:
        head = [str(column) for column in table.columns]
        rows = [[str(value) for value in row] for row in table.itertuples(index=False)]
        self.lines += ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]

    def text(self, text: str) -> None:
        self.lines += ["```text", *(line.rstrip() for line in text.splitlines()), "```", ""]

    def write(self) -> Path:
        path = self.folder / f"{self.recipe}.md"
        path.write_text("\n".join(self.lines).strip() + "\n", encoding="utf-8")
        return path


def webp(plot: Plot) -> bytes:
    """Return the plot as WebP of at most 150 KB: first without loss, then at a falling quality."""
    image = Image.open(io.BytesIO(plot._repr_png_()[0])).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    for options in ({"lossless": True}, *({"quality": quality} for quality in (90, 80, 70, 60, 50))):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", method=6, **options)
        if buffer.tell() <= MOST_BYTES:
            return buffer.getvalue()
    raise SystemExit(f"a figure of {image.width}x{image.height} pixels takes more than {MOST_BYTES} bytes")


def maps_of(run: sl.Run, images: np.ndarray, predicted: np.ndarray, labels: np.ndarray, layer: str) -> dict:
    """Explain images at a layer, for the predicted and, where they differ, for the true class."""
    model, pictures = run.model(), sl.to_float(images)
    found = {"predicted": sl.explain(model, pictures, predicted, layer=layer)}
    if (predicted != labels).any():
        found["true"] = sl.explain(model, pictures, labels, layer=layer)
    return found


def write_page(run: sl.Run, folder: Path) -> Path:
    """Write the page of one run."""
    data, predictions, recipe = run.data(), run.predictions, run.recipe
    page = Page(folder, recipe.name)
    metrics = run.metrics
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    page.lines += [f"# {recipe.name}", "", recipe.description + ".", ""]
    overview(page, run, metrics, environment)

    page.heading("Data")
    indices = np.random.default_rng(recipe.training.seed).permutation(len(data.train))[:10]
    names = [data.class_names[label] for label in data.train.labels[indices]]
    page.figure("samples", sl.plot_images(data.train.images[indices], names), "Ten training images")
    transform = recipe.make_augmentation(data.mean.tolist())
    augmented = preview_augmentation(data, transform, indices, seed=recipe.training.seed)
    page.figure("augmented", sl.plot_images(augmented, names), "The same images, augmented")
    again = preview_augmentation(data, transform, np.full(10, indices[0]), seed=recipe.training.seed)
    page.figure("augmented_one", sl.plot_images(again), "One image, augmented ten times")

    page.heading("Model")
    page.answers("summary")
    page.text(sl.summarize(run.model(), data.image_size))

    page.heading("Training")
    if (run.folder / "range_test.csv").exists():
        from sightline.report import write_range_test

        picture = Image.open(write_range_test(run.folder))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=85, method=6)
        (page.folder / page.recipe / "range_test.webp").write_bytes(buffer.getvalue())
        page.answers("range_test")
        page.lines += [f"![Learning-rate range test]({page.recipe}/range_test.webp)", ""]
    page.figure(
        "learning_rate",
        sl.plot_learning_rate(pd.read_csv(run.folder / "steps.csv")),
        "Learning rate per iteration",
    )
    page.figure("curves", sl.plot_curves(run.history), "Loss and accuracy per epoch, training and test")
    page.answers("log")
    page.table(log_of(run.history))

    page.heading("Test split")
    page.figure("class_accuracy", sl.plot_class_accuracy(predictions), "Accuracy of each class")
    page.figure("confusion", sl.plot_confusion(predictions), "Confusion matrix")
    pairs = confused_pairs(predictions)[:15]
    page.lines += ["Pairs of classes that are confused most, with the median loss of their images.", ""]
    page.table(
        pairs.assign(
            share=pairs["share"].map("{:.1%}".format), median_loss=pairs["median_loss"].map("{:.2f}".format)
        )
    )

    page.heading("Mistakes in descending order of loss")
    mistakes_of(page, run, data, predictions)
    page.heading("Correct predictions")
    right = np.flatnonzero(predictions.correct)
    chosen = np.sort(np.random.default_rng(recipe.training.seed).permutation(right)[:10])
    images = np.asarray(data.test.images[chosen])
    layer = recipe.analysis.layer or "layer3"
    found = maps_of(run, images, predictions.predicted[chosen], predictions.labels[chosen], layer)
    page.figure(
        "correct_maps",
        sl.plot_explanations(images, found, data.class_names),
        f"Ten correct predictions, {layer}",
    )
    return page.write()


def overview(page: Page, run: sl.Run, metrics: dict, environment: dict) -> None:
    """The table of what came out next to what the source reports."""
    published = run.recipe.published
    rows = [
        (
            "test accuracy",
            f"{100 * metrics['accuracy']:.2f} %",
            f"{published.test} %" if published.test else "-",
        )
    ]
    last = run.history.iloc[-1]
    rows.append(
        (
            "training accuracy (augmented)",
            f"{100 * last['train_accuracy']:.2f} %",
            f"{published.train} %" if published.train else "-",
        )
    )
    for key in ("accuracy_with_tta", "accuracy_with_views"):
        if key in metrics:
            rows.append(("test accuracy with test-time augmentation", f"{100 * metrics[key]:.2f} %", "-"))
    rows.append(("mistakes", f"{metrics['mistakes']} of {metrics['images']}", "-"))
    page.table(pd.DataFrame(rows, columns=["", "here (1 seed)", "source"]))
    hardware = environment["hardware"]
    minutes = run.history["seconds"].sum() / 60
    page.lines += [
        f"Trained {environment['started'][:10]} on {hardware['processor']}, {hardware['threads']} threads, "
        f"in {minutes:.0f} minutes. Command: `{environment['command']}`.",
        "",
    ]
    if published.note:
        page.lines += [published.note, ""]


def log_of(history: pd.DataFrame) -> pd.DataFrame:
    """The log of training as a table of text."""
    return pd.DataFrame(
        {
            "epoch": history["epoch"],
            "learning rate": history["lr"].map("{:.4g}".format),
            "train loss": history["train_loss"].map("{:.4f}".format),
            "train accuracy": history["train_accuracy"].map("{:.2%}".format),
            "test loss": history["test_loss"].map("{:.4f}".format),
            "test accuracy": history["test_accuracy"].map("{:.2%}".format),
        }
    )


def mistakes_of(page: Page, run: sl.Run, data: sl.Dataset, predictions: sl.Predictions) -> None:
    """The 10 and the 20 costliest mistakes, and their heat maps at several layers for both classes."""
    main = run.recipe.analysis.layer or "layer3"
    layers = list(dict.fromkeys([main, *run.recipe.analysis.layers]))
    page.figure(
        "mistakes", sl.plot_mistakes(predictions, data.test.images, limit=10), "The 10 costliest mistakes"
    )
    page.figure(
        "mistakes_20", sl.plot_mistakes(predictions, data.test.images, limit=20), "The 20 costliest mistakes"
    )
    for limit in (10, 20):
        chosen = sl.rank_mistakes(predictions, limit=limit)["index"].to_numpy(int)
        images = np.asarray(data.test.images[chosen])
        for layer in layers if limit == 10 else [main]:
            found = maps_of(run, images, predictions.predicted[chosen], predictions.labels[chosen], layer)
            name = "mistakes_maps_main" if (layer, limit) == (main, 10) else f"mistakes_maps_{layer}_{limit}"
            text = f"Heat maps of the {limit} costliest mistakes at {layer}, predicted and true class"
            page.figure(name, sl.plot_explanations(images, found, data.class_names, limit=limit), text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument(
        "--out", type=Path, default=PAGES, help="folder of the pages [default: docs/reproduction]"
    )
    arguments = parser.parse_args()
    for folder in arguments.runs:
        print(write_page(sl.load_run(folder), arguments.out))


if __name__ == "__main__":
    main()
