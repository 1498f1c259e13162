"""From finished runs: docs/reproduction/RECIPE.md, the file of figures, the table in RESULTS.md.

    python benchmarks/reproduction.py runs/resnet18-cutout16-1          # the page of a run
    python benchmarks/reproduction.py --add runs/resnet18-cutout16-1    # and its row of figures
    python benchmarks/reproduction.py                                   # the table of RESULTS.md alone, again

Each figure says which figure of the source it answers, and is a WebP of less than 150 KB. Nothing is trained
and nothing is written into a run; its model is opened to draw heat maps at several layers. `--add` takes a
run of a recipe as the package has it: what differs, but for seed, precision and engine of the augmentation,
is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import sightline as sl
from sightline.attribution import explain_layers
from sightline.data import preview_augmentation
from sightline.files import write_text
from sightline.predictions import confused_pairs
from sightline.report import write_range_test
from sightline.report.plots import Plot
from sightline.runs import load_run
from sightline.training import RECIPES, Figures, load_figures, load_recipe

MOST_BYTES = 150_000
WIDEST = 1400  # pixels
ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reproduction"
FIGURES = ROOT / "src" / "sightline" / "training" / "recipes" / "figures.json"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
BEGIN = "<!-- recipes: made by benchmarks/reproduction.py from training/recipes/figures.json -->"
END = "<!-- end of recipes -->"
SECTIONS = ("data", "model", "augment", "optimizer", "schedule", "weight_averaging", "mix", "training")

# What the source of each recipe shows, by the name of our figure.
ANSWERS: dict[str, dict[str, str]] = {
    "resnet18-cutout16": {
        "samples": "example images from the training set",
        "augmented": "example images after all image augmentations",
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

    def heading(self, text: str) -> None:
        self.lines += ["", f"## {text}", ""]

    def answers(self, name: str) -> None:
        """Say which figure of the source the next one answers, if it answers one."""
        if source := ANSWERS.get(self.recipe, {}).get(name):
            self.lines += [f"Answers the source's: {source}.", ""]

    def figure(self, name: str, plot: Plot, text: str) -> None:
        self.picture(name, plot._repr_png_()[0], text)

    def picture(self, name: str, png: bytes, text: str) -> None:
        (self.folder / self.recipe / f"{name}.webp").write_bytes(webp(png))
        self.lines += [f"{text}.", ""]
        self.answers(name)
        self.lines += [f"![{text}]({self.recipe}/{name}.webp)", ""]

    def table(self, table: pd.DataFrame) -> None:
        self.lines += [*markdown(list(table.columns), table.itertuples(index=False)), ""]

    def text(self, text: str) -> None:
        self.lines += ["```text", *(line.rstrip() for line in text.splitlines()), "```", ""]

    def write(self) -> Path:
        path = self.folder / f"{self.recipe}.md"
        path.write_text("\n".join(self.lines).strip() + "\n", encoding="utf-8")
        return path


def markdown(headings: list[str], rows: Any) -> list[str]:
    """Return the lines of a Markdown table."""
    texts = [[str(value) for value in row] for row in (headings, ["---"] * len(headings), *rows)]
    return ["| " + " | ".join(row) + " |" for row in texts]


def webp(png: bytes) -> bytes:
    """Return a picture as WebP of at most 150 KB: first without loss, then at a falling quality."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    options: list[dict[str, Any]] = [{"lossless": True}]
    for one in options + [{"quality": quality} for quality in (90, 80, 70, 60, 50, 40, 30)]:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", method=6, **one)
        if buffer.tell() <= MOST_BYTES:
            return buffer.getvalue()
    raise SystemExit(f"a figure of {image.width}x{image.height} pixels takes more than {MOST_BYTES} bytes")


def write_page(run: sl.Run, folder: Path) -> Path:
    """Write the page of one run."""
    data, predictions, recipe = run.data(), run.predictions, run.recipe
    page = Page(folder, recipe.name)
    page.lines += [f"# {recipe.name}", "", recipe.description + ".", ""]
    overview(page, run)
    page.heading("Data")
    samples(page, run, data)
    page.heading("Model")
    page.answers("summary")
    page.text(sl.summarize(run.model(), data.image_size))
    page.heading("Training")
    training(page, run)
    page.heading("Test split")
    page.figure("class_accuracy", sl.plot_class_accuracy(predictions), "Accuracy of each class")
    page.figure("confusion", sl.plot_confusion(predictions), "Confusion matrix")
    pairs = confused_pairs(predictions, limit=15)
    share, loss = pairs["share"].map("{:.1%}".format), pairs["median_loss"].map("{:.2f}".format)
    page.lines += ["The pairs of classes that are confused most, and the median loss of their images.", ""]
    page.table(pairs.assign(share=share, median_loss=loss))
    page.heading("Mistakes in descending order of loss")
    mistakes(page, run, data)
    page.heading("Correct predictions")
    right = np.flatnonzero(predictions.correct)
    chosen = np.sort(np.random.default_rng(recipe.training.seed).permutation(right)[:10])
    if len(chosen):
        images, layer = np.asarray(data.test.images[chosen]), main_layer(run)
        found = sl.explain(run.model(), sl.to_float(images), predictions.predicted[chosen], layer=layer)
        plot = sl.plot_explanations(images, found, data.class_names, per_line=10)
        page.figure("correct_maps", plot, f"Grad-CAM at {layer} of ten correct predictions, drawn by chance")
    return page.write()


def overview(page: Page, run: sl.Run) -> None:
    """What came out next to what the source reports, and on what it was made."""
    published, metrics = run.recipe.published, run.metrics
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    trained = f"{100 * run.history['train_accuracy'].iloc[-1]:.2f} %"
    rows = [
        ("test accuracy", f"{100 * metrics['accuracy']:.2f} %", percent(published.test)),
        ("training accuracy, augmented images of the last epoch", trained, percent(published.train)),
    ]
    if (tta := with_tta(metrics)) is not None:
        rows.append(("test accuracy with test-time augmentation", f"{100 * tta:.2f} %", "-"))
    rows.append(("mistakes", f"{metrics['mistakes']} of {metrics['images']}", "-"))
    page.lines += markdown(["", f"here, seed {run.recipe.training.seed}", "source"], rows)
    hardware = environment["hardware"]
    minutes = run.history["seconds"].sum() / 60
    page.lines += [
        "",
        f"Trained on {environment['started'][:10]} on {hardware['processor']} (threads: "
        f"{hardware['threads']}) in {minutes:.1f} minutes, with the evaluation after each epoch. "
        f"{published.note}".strip(),
    ]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def with_tta(metrics: dict[str, Any]) -> float | None:
    """The accuracy with test-time augmentation; a run of version 0.1 has it under another name."""
    return metrics.get("accuracy_with_tta", metrics.get("accuracy_with_views"))


def samples(page: Page, run: sl.Run, data: sl.Dataset) -> None:
    """Training images as they are, augmented, and one of them augmented ten times."""
    seed = run.recipe.training.seed
    indices = np.random.default_rng(seed).permutation(len(data.train))[:10]
    names = [data.class_names[label] for label in data.train.labels[indices]]
    page.figure("samples", sl.plot_images(data.train.images[indices], names), "Ten training images")
    transform = run.recipe.make_augmentation(data.mean.tolist())
    augmented = preview_augmentation(data, transform, indices, seed=seed)
    page.figure("augmented", sl.plot_images(augmented, names), "The same images, augmented")
    again = preview_augmentation(data, transform, np.full(10, indices[0]), seed=seed)
    page.figure("augmented_one", sl.plot_images(again), "One image, augmented ten times")


def training(page: Page, run: sl.Run) -> None:
    """Range test where one was made, learning rate, curves, and the log of the epochs."""
    if (run.folder / "range_test.csv").exists():
        with tempfile.TemporaryDirectory() as beside:  # drawing it writes a file, and the run is not ours
            for name in ("range_test.csv", "range_test.json"):
                shutil.copy(run.folder / name, beside)
            png = write_range_test(beside).read_bytes()
        page.picture("range_test", png, "Learning-rate range test")
    steps = pd.read_csv(run.folder / "steps.csv")
    page.figure("learning_rate", sl.plot_learning_rate(steps), "Learning rate of each iteration")
    page.figure("curves", sl.plot_curves(run.history), "Loss and accuracy of each epoch, training and test")
    page.answers("log")
    history = run.history
    formats = {
        "epoch": "{:.0f}", "lr": "{:.4g}", "train_loss": "{:.4f}", "train_accuracy": "{:.2%}",
        "test_loss": "{:.4f}", "test_accuracy": "{:.2%}", "seconds": "{:.0f}",
    }  # fmt: skip
    columns = {name.replace("_", " "): history[name].map(form.format) for name, form in formats.items()}
    page.table(pd.DataFrame(columns))


def main_layer(run: sl.Run) -> str:
    return run.recipe.analysis.layer or "layer3"


def mistakes(page: Page, run: sl.Run, data: sl.Dataset) -> None:
    """The 10 and the 20 costliest mistakes, and their maps at every stage for both classes."""
    predictions, model, main = run.predictions, run.model(), main_layer(run)
    stages = [name for name, _ in model.named_children() if name in ("layer1", "layer2", "layer3", "layer4")]
    layers = list(dict.fromkeys([main, *(stages or run.recipe.analysis.layers)]))
    for limit in (10, 20):
        plot = sl.plot_mistakes(predictions, data.test.images, limit=limit, per_line=10)
        page.figure("mistakes" if limit == 10 else "mistakes_20", plot, f"The {limit} costliest mistakes")
    worst = sl.rank_mistakes(predictions, limit=20)["index"].to_numpy(int)
    if not len(worst):
        return
    images = np.asarray(data.test.images[worst])
    targets = {"predicted": predictions.predicted[worst], "true": predictions.labels[worst]}
    for limit in (10, 20):
        shown = images[:limit]
        found = {
            target: explain_layers(model, sl.to_float(shown), classes[:limit], layers=layers)
            for target, classes in targets.items()
        }
        for layer in layers:
            name = "mistakes_maps_main" if (layer, limit) == (main, 10) else f"mistakes_maps_{layer}_{limit}"
            maps = {target: by_layer[layer] for target, by_layer in found.items()}
            plot = sl.plot_explanations(shown, maps, data.class_names, limit=limit, per_line=10)
            size = "x".join(str(side) for side in found["true"][layer].maps.shape[1:])
            text = f"Grad-CAM of the {limit} costliest mistakes at {layer} ({size}), predicted and true class"
            page.figure(name, plot, text)


def differences(run: sl.Run) -> list[str]:
    """What sets a run's recipe apart from that of the package, seed, execution and places left out."""
    if run.recipe.name not in RECIPES:
        return [f"name {run.recipe.name}"]
    shipped = load_recipe(run.recipe.name)
    ours, theirs = (one.model_dump() for one in (run.recipe, shipped))
    free = {"data.dir", "data.stream", "augment.engine", "training.seed", "training.precision"}
    free |= {
        "training.memory_format",
        "training.compile",
        *([f"schedule.{shipped.lr_key}"] if shipped.finds_lr else []),
    }
    found = []
    if len(run.history) < run.recipe.training.epochs:
        found.append(f"it ended after epoch {len(run.history)} of {run.recipe.training.epochs}")
    for section in SECTIONS:
        for key in sorted(set(ours[section]) | set(theirs[section])):
            pair = ours[section].get(key), theirs[section].get(key)
            if pair[0] != pair[1] and f"{section}.{key}" not in free:
                found.append(f"{section}.{key} is {pair[0]!r} and not {pair[1]!r}")
    return found


def add_figures(run: sl.Run, path: Path, machine: str) -> None:
    """Put the accuracies of a finished run into the file of figures."""
    if found := differences(run):
        raise SystemExit(f"{run.folder} is no run of a recipe as the package has it: {'; '.join(found)}")
    content = json.loads(path.read_text(encoding="utf-8"))
    name, seed, metrics = run.recipe.name, run.recipe.training.seed, run.metrics
    row = content["recipes"].get(name) or {"machine": machine, "tta": run.recipe.analysis.tta}
    if seed in row.get("seeds", []):
        raise SystemExit(f"{path} has a run of {name} with seed {seed}; take the row out first to replace it")
    if row["machine"] != machine:
        raise SystemExit(f"{path} has {name} on machine {row['machine']}; one row is of one machine")
    tta = with_tta(metrics)
    measured = {
        "seeds": [seed],
        "test": [round(100 * metrics["accuracy"], 2)],
        "test_with_tta": [] if tta is None else [round(100 * tta, 2)],
        "train": [round(100 * float(run.history["train_accuracy"].iloc[-1]), 2)],
        "minutes": [round(float(run.history["seconds"].sum()) / 60, 1)],
    }
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    row |= {key: sorted([*row.get(key, []), *values]) for key, values in measured.items()}
    row["date"] = max(row.get("date", ""), environment["started"][:10])
    content["recipes"][name] = {key.name: row[key.name] for key in dataclasses.fields(Figures)}
    content["recipes"] = dict(sorted(content["recipes"].items()))
    write_text(path, json.dumps(content, indent=2) + "\n")


def spread(values: tuple[float, ...], digits: int = 2) -> str:
    """The mean of some values, with their range where there are several."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    several = len(values) > 1
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})" if several else mean


def results_table(figures: dict[str, Figures]) -> str:
    """The table of recipes in RESULTS.md."""
    headings = [
        "recipe", "source: train / test, %", "here: test, %", "deviation",
        "with test-time augmentation, %", "n", "here: train, %", "minutes", "machine, date",
    ]  # fmt: skip
    rows = []
    for name in sorted(RECIPES):
        published, own = load_recipe(name).published, figures.get(name)
        source = "-" if published.test is None else f"{published.train:.2f} / {published.test:.2f}"
        if own is None:
            rows.append([f"`{name}`", source, *["-"] * 7])
            continue
        deviation = f"{statistics.stdev(own.test):.2f}" if len(own.test) > 1 else "-"
        tta = f"{spread(own.test_with_tta)}, `{own.tta}`" if own.test_with_tta else "-"
        rows.append(
            [
                f"`{name}`",
                source,
                spread(own.test),
                deviation,
                tta,
                str(len(own.test)),
                spread(own.train),
                spread(own.minutes, 1),
                f"{own.machine}, {own.date}",
            ]
        )
    return "\n".join(markdown(headings, rows))


def renew_results(path: Path, figures: dict[str, Figures]) -> None:
    """Write the table between its two marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        raise SystemExit(f"{path} lacks the lines {BEGIN} and {END} that the table stands between")
    write_text(path, f"{before}{BEGIN}\n{results_table(figures)}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=PAGES, help="folder of the pages [docs/reproduction]")
    parser.add_argument("--add", action="store_true", help="add the runs to the file of figures")
    parser.add_argument("--machine", default="A", help="letter of the machine in RESULTS.md [A]")
    arguments = parser.parse_args()
    for folder in arguments.runs:
        run = load_run(folder)
        if arguments.add:
            add_figures(run, FIGURES, arguments.machine)
        print(write_page(run, arguments.out))
    if arguments.add or not arguments.runs:
        renew_results(RESULTS, load_figures())


if __name__ == "__main__":
    main()
