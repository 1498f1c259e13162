"""What the model was given: pictures, their augmentation, the data set, and the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sightline.report import pictures
from sightline.report.blocks import Column, Facts, Note, Section, Table, Text, Tile, Tiles
from sightline.report.formatting import count, page_name, percent, plural
from sightline.report.run_data import ReportData

_GROUP = "Data and model"


def samples_section(data: ReportData) -> Section | None:
    if data.samples is None:
        return None
    names = [page_name(data.class_names[label]) for label in data.samples.labels]
    tiles = tuple(
        Tile((pictures.tile(image, f"Training image, {name}"),), name)
        for image, name in zip(data.samples.images, names, strict=True)
    )
    lead = "Training images as they are in the data set: does each look like its class?"
    return Section("Sample images", "samples", _GROUP, lead, (Tiles("Training images.", tiles),))


def augmented_section(data: ReportData) -> Section | None:
    if data.samples is None:
        return None
    lead = (
        "What the model saw instead: the class must still be told by eye, or the augmentation is too strong."
    )
    pairs = tuple(
        Tile((pictures.tile(before, f"{name}, as it is"), pictures.tile(after, f"{name}, augmented")), name)
        for before, after, name in zip(
            data.samples.images,
            data.samples.augmented,
            [page_name(data.class_names[label]) for label in data.samples.labels],
            strict=True,
        )
    )
    again = tuple(
        Tile((pictures.tile(image, f"Draw {k}" if k else "The original"),), f"draw {k}" if k else "original")
        for k, image in enumerate(data.samples.augmented_one)
    )
    blocks = (Tiles("Each image beside its augmented self.", pairs), Tiles("One image, many times.", again))
    return Section("Augmented samples", "augmented", _GROUP, lead, blocks)


def data_section(data: ReportData) -> Section:
    train, test = data.data["train_counts"], data.data["test_counts"]
    images = f"{count(sum(train))} training and {count(sum(test))} test images"
    lead = f"{images} in {plural(len(train), 'class', 'classes')}, {_balance(train)}."
    note = Note(
        "Mean and spread are of the training images, in [0, 1]; the model's first layer applies them."
    )
    columns = (
        Column("Class"),
        Column("Training", numeric=True),
        Column("Share", numeric=True),
        Column("Test", numeric=True),
    )
    rows = tuple(
        (page_name(name, most=400), count(a), percent(a / max(sum(train), 1)), count(b))
        for name, a, b in zip(data.data["class_names"], train, test, strict=True)
    )
    blocks = (Facts(tuple(_facts(data.data))), note, Table("Images per class.", columns, rows))
    return Section("Data", "data", _GROUP, lead, blocks)


def _facts(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Data set", page_name(str(facts["name"]))
    if facts.get("source"):
        yield "Source", str(facts["source"])
    if facts.get("image_size"):
        yield "Image size", "{} × {} pixels".format(*facts["image_size"])
    for label, key in (("Mean per channel", "mean"), ("Spread per channel", "std")):
        yield label, "  ".join(f"{c} {value:.4f}" for c, value in zip("RGB", facts[key], strict=True))
    for key, value in (facts.get("planted") or {}).items():
        yield f"Planted: {key.replace('_', ' ')}", str(value)


def model_section(data: ReportData) -> Section:
    parameters = count(data.model["parameters"])
    lead = f"{page_name(str(data.model['name']))} has {parameters} parameters; the table says where they sit."
    text = Text("Layers, shapes and parameters", str(data.model["summary"]))
    return Section("Model", "model", _GROUP, lead, (text,))


def _balance(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    if low == high:
        return f"{plural(low, 'training image')} in each"
    return f"{count(low)} to {count(high)} training images in each"
