"""What the model was given: pictures, their augmentation, the data set, and the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sightline.report.blocks import Column, Facts, Heading, Note, Section, Table, Text, Tile, Tiles
from sightline.report.formatting import count, page_name, percent, plural
from sightline.report.gallery import tile_picture
from sightline.report.run_data import DataCard, RunData

_GROUP = "Data and model"
_SAMPLES = Heading("Sample images", "samples", _GROUP)
_AUGMENTED = Heading("Augmented samples", "augmented", _GROUP)
_DATA = Heading("Data", "data", _GROUP)
_MODEL = Heading("Model", "model", _GROUP)
_RESIZING = {
    "crop": "scaled until they cover the image; what hangs over the centre is cut off",
    "pad": "scaled until they fit inside the image; the rest is grey",
    "stretch": "stretched to the image, each side by its own factor",
}


def samples_section(run: RunData) -> Section | None:
    if run.samples is None:
        return None
    names = [page_name(run.class_names[label]) for label in run.samples.labels]
    tiles = tuple(
        Tile((tile_picture(image, f"Training image, {name}"),), name)
        for image, name in zip(run.samples.images, names, strict=True)
    )
    lead = "Training images as they are in the data set. Does each look like its class?"
    return Section(_SAMPLES, lead, (Tiles("Training images.", tiles),))


def augmented_section(run: RunData) -> Section | None:
    if run.samples is None:
        return None
    lead = (
        "Training images as the model saw them. If you cannot tell the class, the augmentation is too strong."
    )
    pairs = tuple(
        Tile((tile_picture(before, f"{name}, original"), tile_picture(after, f"{name}, augmented")), name)
        for before, after, name in zip(
            run.samples.images,
            run.samples.augmented,
            [page_name(run.class_names[label]) for label in run.samples.labels],
            strict=True,
        )
    )
    again = tuple(
        Tile((tile_picture(image, f"Draw {k}" if k else "The original"),), f"draw {k}" if k else "original")
        for k, image in enumerate(run.samples.augmented_one)
    )
    blocks = (
        Tiles("Each image next to an augmented version.", pairs),
        Tiles("One image, augmented again and again.", again),
    )
    return Section(_AUGMENTED, lead, blocks)


def data_section(run: RunData) -> Section | None:
    if run.data is None:
        return None
    train, test = run.data.train_counts, run.data.test_counts
    images = f"{count(sum(train))} training and {count(sum(test))} test images"
    lead = f"{images} in {plural(len(train), 'class', 'classes')}, {_balance(train)}."
    note = Note(
        "Mean and standard deviation are of the training images, in [0, 1]. The first layer of the model "
        "applies them."
    )
    columns = (
        Column("Class"),
        Column("Training", numeric=True),
        Column("Share", numeric=True),
        Column("Test", numeric=True),
    )
    rows = tuple(
        (page_name(name, limit=400), count(a), percent(a / max(sum(train), 1)), count(b))
        for name, a, b in zip(run.data.class_names, train, test, strict=True)
    )
    blocks = [Facts(tuple(_facts(run.data))), note, Table("Images per class.", columns, rows)]
    for caption, lines in (("What loading decided", run.data.notes), ("Skipped files", run.data.skipped)):
        if lines:
            blocks.append(Text(caption, "\n".join(lines)))
    return Section(_DATA, lead, tuple(blocks))


def _facts(data: DataCard) -> Iterator[tuple[str, str]]:
    yield "Data set", page_name(data.name)
    if data.source:
        yield "Source", data.source
    if data.image_size:
        yield "Image size", "{} × {} pixels".format(*data.image_size)
    if data.resize in _RESIZING:
        yield "Other sizes", f"{_RESIZING[data.resize]} ({data.interpolation} interpolation)"
    for label, values in (("Mean per channel", data.mean), ("Standard deviation per channel", data.std)):
        if not values:
            continue
        names = "RGB" if len(values) == 3 else range(1, len(values) + 1)
        yield label, "  ".join(f"{channel} {value:.3f}" for channel, value in zip(names, values, strict=True))
    for key, value in (data.planted or {}).items():
        yield f"Planted: {key.replace('_', ' ')}", str(value)


def model_section(run: RunData) -> Section | None:
    if run.model is None:
        return None
    lead = (
        f"{page_name(run.model.name)} has {count(run.model.parameters)} parameters. The table shows in "
        "which layers they are."
    )
    return Section(_MODEL, lead, (Text("Layers, shapes and parameters", run.model.summary),))


def _balance(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    if not high:
        return "none of them for training"
    if low == high:
        return f"{plural(low, 'training image')} in each"
    return f"{count(low)} to {count(high)} training images in each"
