"""What the model gets wrong: by class, by pair of classes, and one by one in order of cost."""

from __future__ import annotations

import numpy as np

from sightline.predictions.metrics import accuracy_per_class, confused_pairs, confusion, rank_mistakes
from sightline.report import charts, pictures
from sightline.report.blocks import (
    Bar,
    Block,
    Cell,
    Chart,
    Column,
    Matrix,
    Note,
    Picture,
    Section,
    Table,
    Tile,
    Tiles,
)
from sightline.report.charts import png
from sightline.report.figures import chart_drawings
from sightline.report.formatting import (
    class_keys,
    count,
    number,
    page_name,
    percent,
    percent_range,
    plural,
    view,
)
from sightline.report.run_data import Gallery, ReportData
from sightline.stats import wilson_interval

_GROUP = "Mistakes"
_PAIRS = 15
_ROWS_WITHOUT_PICTURES = 20
# With a gallery every cell leads to its images, so that the matrix stays a table for more classes.
_LINKED_CLASSES = 100


def confusion_of(data: ReportData) -> np.ndarray:
    """Return the run's confusion matrix, (C, C) counts, rows true."""
    return confusion(data.predictions.labels, data.predictions.predicted, len(data.class_names))


def class_section(data: ReportData) -> Section:
    matrix = confusion_of(data)
    shares = accuracy_per_class(matrix)
    tested = np.flatnonzero(matrix.sum(axis=1)).tolist()
    order = sorted(tested, key=lambda c: shares[c])
    weakest, best = order[0], order[-1]
    lead = (
        f"The weakest class is {page_name(data.class_names[weakest])} with {percent(shares[weakest])} right, "
        f"the best {page_name(data.class_names[best])} with {percent(shares[best])}."
    )
    blocks: tuple[Block, ...] = (_class_table(matrix, order, data.class_names),)
    if absent := len(matrix) - len(tested):
        blocks += (Note(f"{plural(absent, 'class', 'classes')} without test images."),)
    return Section("Accuracy per class", "accuracy-per-class", _GROUP, lead, blocks)


def _class_table(matrix: np.ndarray, order: list[int], names: tuple[str, ...]) -> Table:
    rows = []
    for c in order:
        right, total = int(matrix[c, c]), int(matrix[c].sum())
        low, high = wilson_interval(right, total)
        others = np.where(np.arange(len(matrix)) == c, -1, matrix[c])
        worst = int(others.argmax())
        taken = f"{page_name(names[worst], most=24)} ({count(others[worst])})" if others[worst] > 0 else "–"
        share = right / total
        rows.append(
            (
                page_name(names[c]),
                Bar(share, low, high),
                percent(share),
                percent_range(low, high),
                count(total),
                taken,
            )
        )
    columns = (
        Column("Class"),
        Column("Share right"),
        Column("Accuracy", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Images", numeric=True),
        Column("Most often taken for"),
    )
    return Table(
        "Weakest class first. The line across a bar's end is its 95\u00a0% Wilson interval.",
        columns,
        tuple(rows),
    )


def confusion_section(data: ReportData) -> Section:
    matrix = confusion_of(data)
    wrong = int(matrix.sum() - matrix.trace())
    lead = "No test image was misclassified: every count stands on the diagonal."
    if wrong:
        lead = (
            f"Each row is a true class, each column what the model said; the colour shows where the "
            f"{plural(wrong, 'mistake')} gather."
        )
    keys = class_keys(data.class_names) if data.audit else ()
    if keys:
        lead += " Click a cell to see its images."
    if len(matrix) <= (_LINKED_CLASSES if keys else charts.NUMBERED_CLASSES):
        block: Block = _matrix(matrix, data.class_names, keys)
    else:
        alt = f"Confusion matrix of {len(matrix)} classes; the confused pairs below list its largest cells."
        # Its colours mean shares and need a white ground: a picture, not a drawing that follows the theme.
        uri = pictures.data_uri(png(chart_drawings(data)["confusion"]), "png")
        block = Chart(
            Picture(uri, alt),
            "The diagonal is left grey and no mistake white: colour is for mistakes only.",
            square=True,
        )
    return Section("Confusion matrix", "confusion-matrix", _GROUP, lead, (block,))


def _matrix(matrix: np.ndarray, names: tuple[str, ...], keys: tuple[str, ...]) -> Matrix:
    """Return the table of a matrix (C, C); with `keys` of the classes, each cell leads into the gallery."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (C, C)
    off_diagonal = np.where(np.eye(len(matrix), dtype=bool), 0.0, shares)
    top = off_diagonal.max() or 1.0
    short = [page_name(name, most=24) for name in names]
    rows = []
    for i, row in enumerate(matrix):
        cells = []
        for j, value in enumerate(row):
            # A single mistake gets a tint too: 0 is kept for none.
            shade = int(np.ceil(10 * off_diagonal[i, j] / top))
            title = f"{short[i]} taken for {short[j]}: {count(value)} ({percent(shares[i, j])})"
            title = title if i != j else f"{short[i]} right: {count(value)}"
            href = view(true=keys[i], pred=keys[j], sort="loss") if keys and value else ""
            cells.append(Cell(count(value), shade, title, i == j, href))
        rows.append(tuple(cells))
    caption = "Test images by true class (rows) and predicted class (columns). Colour: share of the row."
    return Matrix(caption, tuple(short), tuple(rows), dense=len(matrix) > charts.NUMBERED_CLASSES)


def pairs_section(data: ReportData) -> Section | None:
    pairs = confused_pairs(data.predictions, most=_PAIRS)
    if pairs.empty:
        return None
    listed = pairs["count"].to_numpy().sum() / (~data.predictions.correct).sum()
    first = pairs.iloc[0]
    lead = (
        f"{page_name(first['true'])} taken for {page_name(first['predicted'])} leads with "
        f"{plural(first['count'], 'image')}; the pairs listed here hold "
        f"{percent(listed, digits=0)} of all mistakes."
    )
    columns = (
        Column("True class"),
        Column("Taken for"),
        Column("Images", numeric=True),
        Column("Share of true class", numeric=True),
        Column("Median loss", numeric=True),
    )
    rows = tuple(
        (
            page_name(row["true"]),
            page_name(row["predicted"]),
            count(row["count"]),
            percent(row["share"]),
            number(row["median_loss"]),
        )
        for row in pairs.to_dict("records")
    )
    caption = "A high median loss: the model is sure of the wrong answer. A low one: it hesitates."
    return Section("Confused pairs", "confused-pairs", _GROUP, lead, (Table(caption, columns, rows),))


def costly_section(data: ReportData) -> Section:
    wrong = int((~data.predictions.correct).sum())
    gallery = data.galleries.get("mistakes")
    if not wrong:
        block: Block = Note("No test image was misclassified.")
        lead = "There is nothing to show here."
    elif gallery is not None:
        block = _gallery(data, gallery)
        lead = (
            f"The {plural(len(gallery.index), 'mistake')} with the highest loss, out of {count(wrong)}: look "
            "for wrong labels, pictures that nobody could tell, and one cause behind several."
        )
    else:
        block = _mistake_table(data)
        lead = f"The mistakes with the highest loss, out of {count(wrong)}; the run kept no pictures of them."
    return Section("Most costly mistakes", "most-costly-mistakes", _GROUP, lead, (block,))


def mistake_tile(data: ReportData, gallery: Gallery, place: int) -> Tile:
    """Return a gallery's picture with its true and predicted class, confidence and loss."""
    index = int(gallery.index[place])
    true = page_name(data.class_names[data.predictions.labels[index]])
    guess = page_name(data.class_names[data.predictions.predicted[index]])
    picture = pictures.tile(
        gallery.images[place], f"Test image {index}, true class {true}, predicted {guess}"
    )
    loss = f"loss {number(data.predictions.loss[index])}"
    sure = f"{percent(data.predictions.confidence[index])} sure"
    return Tile((picture,), f"{guess}, not {true}", (loss, sure, f"image {index}"))


def _gallery(data: ReportData, gallery: Gallery) -> Tiles:
    tiles = tuple(mistake_tile(data, gallery, place) for place in range(len(gallery.index)))
    return Tiles(
        "In descending order of loss. “Dog, not cat”: predicted dog, and the label says cat.",
        tiles,
        numbered=True,
    )


def _mistake_table(data: ReportData) -> Table:
    table = rank_mistakes(data.predictions, most=_ROWS_WITHOUT_PICTURES)
    columns = (
        Column("Image"),
        Column("True class"),
        Column("Predicted"),
        Column("Confidence", numeric=True),
        Column("Loss", numeric=True),
    )
    rows = tuple(
        (
            str(row["index"]),
            page_name(data.class_names[row["label"]]),
            page_name(data.class_names[row["predicted"]]),
            percent(row["confidence"]),
            number(row["loss"]),
        )
        for row in table.to_dict("records")
    )
    return Table("In descending order of loss.", columns, rows)
