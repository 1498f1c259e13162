"""What the model gets wrong: by class, by pair of classes, by difficulty, and image by image."""

from __future__ import annotations

import numpy as np

from sightline.audit.record import MAP_COLUMNS
from sightline.audit.result import DifficultyKind
from sightline.predictions.metrics import accuracy_per_class, confusion, rank_mistakes
from sightline.report.blocks import (
    Bar,
    Block,
    Card,
    Cards,
    Cell,
    Column,
    Details,
    Heading,
    Link,
    Matrix,
    Note,
    Section,
    Table,
    Thumbs,
    Tool,
)
from sightline.report.formatting import (
    class_keys,
    count,
    number,
    p_value,
    page_name,
    percent,
    percent_digits,
    percent_range,
    plural,
    view,
)
from sightline.report.run_data import RunData
from sightline.report.svg import matrix_map
from sightline.stats import wilson_interval

_GROUP = "Mistakes"
_MAP = Heading("Map of the images", "map", _GROUP, terms=("Map of the images",))
_GALLERY = Heading(
    "Gallery", "gallery", _GROUP, terms=("Loss", "Margin", "Confidence", "Ambiguity", "Label quality")
)
_CONFUSION = Heading("Confusion matrix", "confusion-matrix", _GROUP, terms=("Confusion matrix",))
_PAIRS = Heading("Confused pairs", "confused-pairs", _GROUP, terms=("Loss", "Confidence interval", "p-value"))
_CLASSES = Heading("Accuracy per class", "accuracy-per-class", _GROUP, terms=("Confidence interval",))
_DIFFICULTY = Heading("Ambiguous, easy, hard", "difficulty", _GROUP, terms=("Ambiguity", "Confidence"))
_PAIRS_SHOWN = 15
_LISTED = 50  # mistakes in the table of a run without pictures
_KIND_IMAGES = 12
_TABLE_CLASSES = 100  # of more, the matrix is a drawing: its cells are too small for numbers and links
_NUMBERED_CLASSES = 20  # of more, a cell of the table has a colour and no number


def gallery_section(run: RunData) -> Section:
    """Return the section of the gallery, which the page's script fills."""
    lead = (
        f"All {plural(len(run.predictions), 'test image')}, the mistakes with the highest loss first. "
        "Filter them, open one to see where the model looked, and decide what to do with it."
    )
    blocks: list[Block] = [Tool("gallery")]
    if run.pictures is None:
        words = "No pictures here: this audit is of the predictions alone. sightline audit RUN adds them."
        if run.data and run.data.image_size is None:
            words = "No pictures here: the data is a table of labels."
        lead = (
            f"All {plural(len(run.predictions), 'test image')}, the mistakes with the highest loss "
            "first. Filter them, open one to see its probabilities, and decide what to do with it."
        )
        blocks.insert(0, Note(words))
        if not run.predictions.correct.all():
            blocks.append(Details("The mistakes with the highest loss as a table", (_mistake_table(run),)))
    return Section(_GALLERY, lead, tuple(blocks))


def map_section(run: RunData) -> Section | None:
    """Return the section of the map of the test images; None for an audit that had no features."""
    if not set(MAP_COLUMNS) <= set(run.audit.test):
        return None
    lead = (
        "Each point is a test image; those that look alike to the network lie side by side. A cross is a "
        "mistake. Draw around some to see them in the gallery."
    )
    return Section(_MAP, lead, (Tool("embedding"),))


def _mistake_table(run: RunData) -> Table:
    columns = (
        Column("Image"),
        Column("True class"),
        Column("Predicted"),
        Column("Confidence", numeric=True),
        Column("Loss", numeric=True),
    )
    rows = tuple(
        (
            Link(str(row["index"]), view(img=row["index"])),
            page_name(run.class_names[row["label"]]),
            page_name(run.class_names[row["predicted"]]),
            percent(row["confidence"]),
            number(row["loss"]),
        )
        for row in rank_mistakes(run.predictions, limit=_LISTED).to_dict("records")
    )
    return Table("In descending order of loss.", columns, rows)


def _confusion_of(run: RunData) -> np.ndarray:
    """The confusion matrix, (C, C) counts, rows true."""
    return confusion(run.predictions.labels, run.predictions.predicted, len(run.class_names))


def class_section(run: RunData) -> Section:
    matrix = _confusion_of(run)
    shares = accuracy_per_class(matrix)
    tested = np.flatnonzero(matrix.sum(axis=1)).tolist()
    order = sorted(tested, key=lambda c: shares[c])
    weakest, best = order[0], order[-1]
    lead = (
        f"The weakest class is {page_name(run.class_names[weakest])} with "
        f"{percent(shares[weakest], digits=0)} right, the best is {page_name(run.class_names[best])} with "
        f"{percent(shares[best], digits=0)}."
    )
    if len(order) == 1:
        lead = f"All test images are of one class, {page_name(run.class_names[best])}."
    blocks: tuple[Block, ...] = (_class_table(matrix, order, run.class_names),)
    if absent := len(matrix) - len(tested):
        blocks += (Note(f"{plural(absent, 'class has', 'classes have')} no test image."),)
    return Section(_CLASSES, lead, blocks)


def _class_table(matrix: np.ndarray, order: list[int], names: tuple[str, ...]) -> Table:
    counts = {c: (int(matrix[c, c]), int(matrix[c].sum())) for c in order}
    intervals = {c: wilson_interval(*counts[c]) for c in order}
    digits = percent_digits(*intervals.values())
    rows = []
    for c in order:
        right, total = counts[c]
        others = np.where(np.arange(len(matrix)) == c, -1, matrix[c])
        worst = int(others.argmax())
        taken = f"{page_name(names[worst], limit=24)} ({count(others[worst])})" if others[worst] > 0 else "–"
        rows.append(
            (
                page_name(names[c]),
                Bar(right / total, *intervals[c]),
                percent(right / total, digits=digits),
                percent_range(*intervals[c], digits=digits),
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
    caption = "The weakest class first. The line across a bar's end is its 95\u00a0% Wilson interval."
    return Table(caption, columns, tuple(rows))


def confusion_section(run: RunData) -> Section:
    matrix = _confusion_of(run)
    wrong = int(matrix.sum() - matrix.trace())
    if not wrong:
        lead = "No test image is misclassified: all counts are on the diagonal."
    else:
        lead = (
            "Each row is a true class, each column a predicted class. The colour shows where the "
            f"{plural(wrong, 'mistake')} are."
        )
    if len(matrix) > _TABLE_CLASSES:
        return Section(_CONFUSION, lead, (_map_of(matrix),))
    lead += " Select a cell to see its images."
    return Section(_CONFUSION, lead, (_matrix(matrix, run.class_names),))


def _shades(matrix: np.ndarray) -> np.ndarray:
    """Return for each cell of a matrix (C, C) how strongly it is coloured, 0 to 10, by its share of the row.

    The scale ends at the largest mistake: on one of the diagonal's size all mistakes would look alike. A
    single mistake gets a tint too; 0 is kept for none, and for the diagonal.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (C, C)
    np.fill_diagonal(shares, 0)
    return np.ceil(10 * shares / (shares.max() or 1.0)).astype(int)


def _map_of(matrix: np.ndarray) -> Block:
    return matrix_map(
        "True classes from top to bottom, predicted classes from left to right. Colour: share of the row.",
        f"Confusion matrix of {len(matrix)} classes; the table of confused pairs lists its largest cells.",
        _shades(matrix),
    )


def _matrix(matrix: np.ndarray, names: tuple[str, ...]) -> Matrix:
    """Return the table of a matrix (C, C), in which each cell leads to its images in the gallery."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (C, C)
    shades, keys = _shades(matrix), class_keys(names)
    short = [page_name(name, limit=24) for name in names]
    rows = []
    for i, row in enumerate(matrix):
        cells = []
        for j, value in enumerate(row):
            title = f"{short[i]} taken for {short[j]}: {count(value)} ({percent(shares[i, j])})"
            title = title if i != j else f"{short[i]} right: {count(value)}"
            href = view(true=keys[i], pred=keys[j], sort="loss") if value else ""
            cells.append(Cell(count(value), int(shades[i, j]), title, i == j, href))
        rows.append(tuple(cells))
    caption = "Test images by true class (rows) and predicted class (columns). Colour: share of the row."
    return Matrix(caption, tuple(short), tuple(rows), dense=len(matrix) > _NUMBERED_CLASSES)


def pairs_section(run: RunData) -> Section | None:
    pairs = run.audit.confused_pairs[:_PAIRS_SHOWN]
    if not pairs:
        return None
    keys, names = class_keys(run.class_names), [page_name(name, limit=32) for name in run.class_names]
    first = pairs[0]
    lead = (
        f"{names[first.true]} is taken for {names[first.predicted]} most often, in "
        f"{plural(first.count, 'image')}. “Other way” tells whether the two classes are confused in both "
        "directions."
    )
    columns = (
        Column("True class → taken for"),
        Column("Images", numeric=True),
        Column("Share of true class", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("Other way", numeric=True),
        Column("Test of the direction", numeric=True),
        Column("Median loss", numeric=True),
    )
    digits = percent_digits(*(one.interval for one in pairs))
    rows = tuple(
        (
            Link(
                f"{names[one.true]} → {names[one.predicted]}",
                view(true=keys[one.true], pred=keys[one.predicted], sort="loss"),
            ),
            count(one.count),
            percent(one.share, digits=digits),
            percent_range(*one.interval, digits=digits),
            count(one.reverse),
            "–" if one.p_direction is None else p_value(one.p_direction),
            number(one.median_loss),
        )
        for one in pairs
    )
    caption = "With a high median loss the model is sure of the wrong answer; with a low one it hesitates."
    return Section(_PAIRS, lead, (Table(caption, columns, rows),))


def difficulty_section(run: RunData) -> Section:
    found = run.audit.difficulty
    meanings = {
        DifficultyKind.AMBIGUOUS: f"ambiguity of {found.ambiguity_from:.2f} or more. Would people agree?",
        DifficultyKind.HARD: f"right, with a confidence of {percent(found.hard_up_to, digits=0)} or less. "
        "The next model may lose these.",
        DifficultyKind.EASY: f"wrong, with a confidence of {percent(found.easy_from, digits=0)} or more. "
        "A wrong label, a near-duplicate, a shortcut?",
    }
    cards, none = [], []
    for row in found.kinds:
        kind, meaning = row.kind.capitalize(), meanings[row.kind]
        if not row.count:
            none.append(Note(f"{kind}: no image ({meaning.partition('. ')[0]})."))
            continue
        wrong = (f"{count(row.wrong)} of them are wrong",) if row.kind is DifficultyKind.AMBIGUOUS else ()
        thumbs = (Thumbs("test", row.images[:_KIND_IMAGES]),)
        title = f"{kind}: {plural(row.count, 'image')}"
        cards.append(Card(thumbs, title, (meaning[0].upper() + meaning[1:], *wrong), view(kind=row.kind)))
    lead = (
        "Images whose answers differ or are unsure, images that the model gets wrong with confidence, and "
        "images that it gets right by luck."
    )
    blocks: list[Block] = [Cards("", tuple(cards))] if cards else []
    return Section(_DIFFICULTY, lead, (*blocks, *none))
