"""Known faults in a copy of a data set, so that what is found can be held against what is there.

    sightline plant photos/ --out planted/ --labels 2% --copies 1% --mark 5%:cat --seed 0
    sightline run probe --data planted/          # the page has "Planted truth"

The copy is a manifest; of a folder or a manifest only those pictures are written that change. What was
planted stands in `planted.json` beside it, by the paths of the pictures, and comes back as `Dataset.truth`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter

from sightline.data.dataset import Dataset
from sightline.data.image_files import read_image
from sightline.data.shapes.truth import PlantedTruth
from sightline.errors import DamagedFileError, InputError, nearest
from sightline.files import check_regular, write_text

MANIFEST, TRUTH = "manifest.csv", "planted.json"
_FORMAT, _VERSION = "sightline-planted", 1
_PICTURES = "pictures"
_MARK = 0.15  # of the shorter side: the square in the top right corner
_TRAIN, _TEST = "train", "test"

Confusion = Literal["any", "alike"]


def _cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    box = (round(0.08 * width), round(0.05 * height), round(0.97 * width), round(0.94 * height))
    return picture.crop(box).resize(picture.size, Image.Resampling.BICUBIC)


def _recompressed(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": _cropped,
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "recompressed": _recompressed,
    "recoloured": lambda picture: ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(1.4)).enhance(
        1.15
    ),
}
"""How a near-copy differs from its original."""

DEGRADED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 20)),
    "dark": lambda picture: ImageEnhance.Brightness(picture).enhance(0.25),
}
"""How pictures are made worse, and what they are called in the column `quality`."""


@dataclass
class _Plan:
    """Rows of the manifest, what is done to their pictures, and the truth by path."""

    data: Dataset
    rows: dict[str, pd.DataFrame]
    edits: dict[tuple[str, int], list[Callable[[Image.Image], Image.Image]]] = field(default_factory=dict)
    added: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, set[int]] = field(default_factory=lambda: {_TRAIN: set(), _TEST: set()})

    def draw(
        self, word: str, count: int, rng: np.random.Generator, among: np.ndarray | None = None
    ) -> np.ndarray:
        """Draw pictures that nothing was done to yet, ascending."""
        known = np.arange(len(self.rows[word])) if among is None else among
        free = np.setdiff1d(known, list(self.taken[word]))
        if count > len(free):
            raise InputError(
                f"{count} {word} pictures are to be changed and {len(free)} are left; plant a smaller share"
            )
        drawn = np.sort(rng.choice(free, count, replace=False))
        self.taken[word].update(drawn.tolist())
        return drawn


def plant(
    name: str | Path | Dataset,
    out: str | Path,
    *,
    labels: float = 0.0,
    confused: Confusion = "any",
    copies: float = 0.0,
    mark: tuple[float, str] | None = None,
    degrade: tuple[float, str] | None = None,
    strangers: float = 0.0,
    seed: int = 0,
    **loading: Any,
) -> Dataset:
    """Write a copy of a data set with known faults into `out`, and return it.

    Args:
        name: A folder of pictures, a manifest, or whatever else `load_data` takes.
        out: A folder that is not there yet, or is empty.
        labels: Share of the labels of each split that become wrong.
        confused: Wrong labels are of "any" other class, or of the class that looks most "alike", by the mean
            of its pictures.
        copies: Near-copies of training pictures that are put into the test split, as a share of that:
            cropped, mirrored, recompressed and recoloured ones in turn.
        mark: A share and a class: a magenta square goes into the corner of as many training pictures of that
            class as make the share of the split, and of as many test pictures of other classes.
        degrade: A share and "blurred" or "dark": pictures of both splits that are made worse; the column
            `quality` says which.
        strangers: Share of the test pictures whose pieces are shuffled, so that they are of no class.
        seed: Of whatever is drawn.
        **loading: Options of `load_data`.

    Raises:
        InputError: A share that does not fit, an unknown class, or a folder with something in it.
    """
    from sightline.data.load import load_data

    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a folder that is not there yet")
    shares = {"labels": labels, "copies": copies, "strangers": strangers}
    shares |= {"mark": mark[0] if mark else 0.0, "degrade": degrade[0] if degrade else 0.0}
    for key, share in shares.items():
        if not 0 <= share <= 0.5:
            raise InputError(f"{key} is {share}; a share from 0 to 0.5 is needed (0 % to 50 %)")
    if not any(shares.values()):
        raise InputError(
            "nothing is to be planted; give a share of labels, copies, mark, degrade or strangers"
        )
    data = load_data(name, seed=seed, **loading)
    plan = _Plan(data, {word: _rows(data, word) for word in (_TRAIN, _TEST)})
    rng = np.random.default_rng(seed)
    plan.truth = {
        "leaks": [],
        "wrong": {_TRAIN: {}, _TEST: {}},
        "mark": None,
        "degraded": [],
        "strangers": [],
    }
    if mark is not None and mark[0]:
        _plant_mark(plan, *mark, rng)
    if strangers:
        _plant_strangers(plan, strangers, rng)
    if degrade is not None and degrade[0]:
        _plant_degraded(plan, *degrade, rng)
    if copies:
        _plant_copies(plan, copies, rng)
    if labels:
        _plant_labels(plan, labels, confused, rng)
    _write(plan, folder, None if isinstance(name, Dataset) else Path(name))
    return load_planted(folder, seed=seed, **loading)


def _rows(data: Dataset, word: str) -> pd.DataFrame:
    split = data.train if word == _TRAIN else data.test
    names = np.array(data.class_names, object)
    rows = split.metadata.drop(columns=["hash", "split", "label"], errors="ignore")
    return rows.assign(path=split.files["path"].to_numpy(), label=names[split.labels], split=word)


def _number(plan: _Plan, word: str, share: float) -> int:
    return max(1, round(share * len(plan.rows[word])))


def _plant_mark(plan: _Plan, share: float, class_name: str, rng: np.random.Generator) -> None:
    names = plan.data.class_names
    if class_name not in names:
        raise InputError(f"there is no class {class_name!r}; {nearest(class_name, names)}")
    marked = {}
    for word, of_class in ((_TRAIN, True), (_TEST, False)):
        members = np.flatnonzero((plan.rows[word]["label"] == class_name).to_numpy() == of_class)
        count = min(_number(plan, word, share), len(members))
        chosen = plan.draw(word, count, rng, members)
        marked[word] = plan.rows[word]["path"].iloc[chosen].tolist()
        for row in chosen:
            plan.edits.setdefault((word, int(row)), []).append(_marked)
    plan.truth["mark"] = {"class": class_name, **marked}


def _marked(picture: Image.Image) -> Image.Image:
    found, side = picture.copy(), max(2, round(_MARK * min(picture.size)))
    found.paste((255, 0, 255), (picture.width - side, 0, picture.width, side))
    return found


def _plant_strangers(plan: _Plan, share: float, rng: np.random.Generator) -> None:
    chosen = plan.draw(_TEST, _number(plan, _TEST, share), rng)
    for row in chosen:
        order = rng.permutation(16)
        plan.edits.setdefault((_TEST, int(row)), []).append(
            lambda picture, order=order: _shuffled(picture, order)
        )
    plan.truth["strangers"] = plan.rows[_TEST]["path"].iloc[chosen].tolist()


def _shuffled(picture: Image.Image, order: np.ndarray) -> Image.Image:
    """The sixteen pieces of a picture in another order."""
    width, height = picture.width // 4, picture.height // 4
    found = picture.copy()
    for place, piece in enumerate(order):
        left, top = int(piece) % 4 * width, int(piece) // 4 * height
        part = picture.crop((left, top, left + width, top + height))
        found.paste(part, (place % 4 * width, place // 4 * height))
    return found


def _plant_degraded(plan: _Plan, share: float, kind: str, rng: np.random.Generator) -> None:
    if kind not in DEGRADED:
        raise InputError(f"pictures cannot be made {kind!r}; {nearest(kind, list(DEGRADED))}")
    for word in (_TRAIN, _TEST):
        chosen = plan.draw(word, _number(plan, word, share), rng)
        quality = np.full(len(plan.rows[word]), "plain", object)
        quality[chosen] = kind
        plan.rows[word] = plan.rows[word].assign(quality=quality)
        for row in chosen:
            plan.edits.setdefault((word, int(row)), []).append(DEGRADED[kind])
        if word == _TEST:
            plan.truth["degraded"] = plan.rows[word]["path"].iloc[chosen].tolist()
    plan.truth["degraded_name"] = f"with quality = {kind}"


def _plant_copies(plan: _Plan, share: float, rng: np.random.Generator) -> None:
    chosen, kinds = plan.draw(_TRAIN, _number(plan, _TEST, share), rng), list(COPIES)
    rows = plan.rows[_TRAIN]
    for number, row in enumerate(chosen):
        kind = kinds[number % len(kinds)]
        plan.added.append({**rows.iloc[row].to_dict(), "split": _TEST, "kind": kind, "of": int(row)})


def _plant_labels(plan: _Plan, share: float, confused: Confusion, rng: np.random.Generator) -> None:
    names = np.array(plan.data.class_names, object)
    alike = _most_alike(plan.data) if confused == "alike" else None
    for word, split in ((_TRAIN, plan.data.train), (_TEST, plan.data.test)):
        chosen = plan.draw(word, _number(plan, word, share), rng)
        truth = split.labels[chosen]
        other = (
            (truth + rng.integers(1, len(names), len(truth))) % len(names) if alike is None else alike[truth]
        )
        labels = plan.rows[word]["label"].to_numpy(object).copy()
        labels[chosen] = names[other]
        plan.rows[word] = plan.rows[word].assign(label=labels)
        paths = plan.rows[word]["path"].iloc[chosen]
        plan.truth["wrong"][word] = dict(zip(paths.tolist(), names[truth].tolist(), strict=True))


def _most_alike(data: Dataset) -> np.ndarray:
    """The class whose mean picture, at 8x8 pixels, is nearest to that of each class, (C,)."""
    total, count = np.zeros((data.num_classes, 192)), np.zeros(data.num_classes)
    for start in range(0, min(len(data.train), 5000), 500):
        rows = np.arange(start, min(start + 500, len(data.train)))
        for image, label in zip(data.train.images[rows], data.train.labels[rows], strict=True):
            total[label] += np.asarray(
                Image.fromarray(image).resize((8, 8), Image.Resampling.BOX), float
            ).ravel()
            count[label] += 1
    means = total / np.maximum(count, 1)[:, None]
    apart = ((means[:, None] - means[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return apart.argmin(axis=1)


def _write(plan: _Plan, folder: Path, source: Path | None) -> None:
    """Write the pictures that change, the manifest, and last what was planted."""
    root = None
    if source is not None and _is_plain(source):
        root = source if source.is_dir() else source.parent
    (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
    paths: dict[str, str] = {}
    tables = []
    for word in (_TRAIN, _TEST):
        rows, split = plan.rows[word], plan.data.train if word == _TRAIN else plan.data.test
        new = []
        for number, path in enumerate(rows["path"]):
            edits = plan.edits.get((word, number), [])
            if edits or root is None:
                picture = _open(root, path, split.images, number)
                for edit in edits:
                    picture = edit(picture)
                new.append(_saved(picture, folder, f"{word}-{number:06d}"))
            else:
                new.append(Path(os.path.relpath(os.path.join(root, path), folder)).as_posix())  # noqa: PTH118
            paths[path] = new[-1]
        tables.append(rows.assign(path=new))
    added = []
    for number, row in enumerate(plan.added):
        kind, original = row.pop("kind"), row.pop("of")
        picture = COPIES[kind](_open(root, row["path"], plan.data.train.images, original))
        copy = _saved(picture, folder, f"copy-{number:06d}")
        plan.truth["leaks"].append([copy, paths[row["path"]], kind])
        added.append({**row, "path": copy})
    table = pd.concat([*tables, *([pd.DataFrame(added)] if added else [])], ignore_index=True)
    if "quality" in table:
        table["quality"] = table["quality"].fillna("plain")
    write_text(folder / MANIFEST, table.to_csv(index=False))
    write_text(folder / TRUTH, json.dumps(_renamed(plan.truth, paths), indent=1, ensure_ascii=False) + "\n")


def _renamed(truth: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """The truth by the paths of the copy."""
    found = {"format": _FORMAT, "version": _VERSION, **truth}
    found["wrong"] = {
        word: {paths[path]: name for path, name in one.items()} for word, one in truth["wrong"].items()
    }
    for key in ("degraded", "strangers"):
        found[key] = [paths[path] for path in truth[key]]
    if mark := truth["mark"]:
        found["mark"] = {"class": mark["class"]}
        found["mark"] |= {word: [paths[path] for path in mark[word]] for word in (_TRAIN, _TEST)}
    return found


def _open(root: Path | None, path: str, images: Any, number: int) -> Image.Image:
    if root is None:
        return Image.fromarray(images[np.array([number])][0])
    return Image.fromarray(read_image(os.path.join(root, path)))  # noqa: PTH118 - an absolute one stays


def _is_plain(source: Path) -> bool:
    """Whether each picture of the source is a file of its own, which the copy can name."""
    from sightline.data.load import kind_of

    return kind_of(source) in ("folder", "planted", "manifest")


def _saved(picture: Image.Image, folder: Path, name: str) -> str:
    picture.save(folder / _PICTURES / f"{name}.png")
    return f"{_PICTURES}/{name}.png"


def is_planted(folder: Path) -> bool:
    """Return whether `plant` has made this folder."""
    return (folder / TRUTH).is_file() and (folder / MANIFEST).is_file()


def load_planted(folder: str | Path, **loading: Any) -> Dataset:
    """Return the data set that `plant` wrote, with its truth; further options as of `load_data`.

    Raises:
        DamagedFileError: `planted.json` is not what `plant` writes.
    """
    from sightline.data.load import load_data

    folder = Path(folder)
    data = load_data(folder / MANIFEST, **loading)
    try:
        check_regular(folder / TRUTH)
        found = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT or found["version"] != _VERSION:
            raise ValueError(f"it is of version {found.get('version')}")
        truth = _truth(data, found)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedFileError(
            f"{folder / TRUTH} is not what 'sightline plant' writes ({str(error)[:100]}); plant again"
        ) from None
    return dataclasses.replace(data, name=folder.resolve().name, truth=truth)


def _truth(data: Dataset, found: Mapping[str, Any]) -> PlantedTruth:
    """What was planted, by the rows of the data; what was left out of the data is left out here."""
    where = {
        word: {path: row for row, path in enumerate(split.files["path"])}
        for word, split in ((_TRAIN, data.train), (_TEST, data.test))
    }
    number = {name: label for label, name in enumerate(data.class_names)}

    def rows(word: str, paths: Any) -> np.ndarray:
        return np.array([where[word][path] for path in paths if path in where[word]], int)

    def members(word: str, paths: Any) -> np.ndarray:
        marked = np.zeros(len(where[word]), bool)
        marked[rows(word, paths)] = True
        return marked

    wrong = {
        word: sorted((where[word][path], number[name]) for path, name in one.items() if path in where[word])
        for word, one in found["wrong"].items()
    }
    pairs = [(where[_TEST].get(a, -1), where[_TRAIN].get(b, -1), kind) for a, b, kind in found["leaks"]]
    pairs = [pair for pair in pairs if min(pair[:2]) >= 0]
    mark = found["mark"] or {}
    height, width = data.image_size
    side = max(2, round(_MARK * min(height, width)))
    return PlantedTruth(
        train_masks=None,
        test_masks=None,
        wrong_labels=np.array([row for row, _ in wrong[_TRAIN]], int),
        true_labels=np.array([label for _, label in wrong[_TRAIN]], int),
        shortcut_class=number[mark["class"]] if mark else -1,
        shortcut_train=members(_TRAIN, mark.get(_TRAIN, ())),
        shortcut_test=members(_TEST, mark.get(_TEST, ())),
        shortcut_box=(0, width - side, side, width),
        leaks=np.array([pair[:2] for pair in pairs], int).reshape(-1, 2),
        leak_kinds=np.array([pair[2] for pair in pairs], object),
        wrong_test=np.array([row for row, _ in wrong[_TEST]], int),
        true_test=np.array([label for _, label in wrong[_TEST]], int),
        degraded=members(_TEST, found["degraded"]),
        degraded_name=str(found.get("degraded_name", "")),
        strangers=rows(_TEST, found["strangers"]),
    )
