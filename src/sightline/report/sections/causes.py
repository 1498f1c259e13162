"""What the audit found behind the mistakes: confused pairs, suspected labels, duplicates, slices."""

from __future__ import annotations

from typing import Any

from sightline.report.blocks import Block, Card, Cards, Column, Details, Link, Note, Section, Table, Thumbs
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
from sightline.report.gallery import suspects_of
from sightline.report.run_data import AuditFiles, ReportData

_GROUP = "Causes"
_SUSPECTS = 24
_CONFUSIONS = 15
_PAIRS_SHOWN, _PAIRS_LISTED = 12, 120
_SLICE_IMAGES = 10
_KIND_IMAGES = 12


def suspects_section(data: ReportData) -> Section | None:
    audit = data.audit
    facts = audit.facts.get("suspects") if audit else None
    if audit is None or not facts:
        return None
    blocks: list[Block] = []
    estimates = []
    for split, word in (("train", "training"), ("test", "test")):
        found = facts.get(split) or {}
        if found.get("estimated") is not None:
            total = len(audit.train if split == "train" else audit.test)
            estimates.append(f"{count(round(found['estimated']))} of {plural(total, word + ' label')}")
        if indices := suspects_of(audit, split):
            caption = f"The most suspicious {word} labels first{_method(found)}. Open one to decide on it."
            blocks.append(Cards(caption, tuple(_suspect(data, audit, split, i) for i in indices[:_SUSPECTS])))
        blocks += [Note(sentence) for sentence in _remarks(found)]
    guess = f" About {' and '.join(estimates)} are estimated to be wrong." if estimates else ""
    lead = f"The label says one thing, the model learned another: who is right?{guess}"
    return Section("Label suspects", "label-suspects", _GROUP, lead, tuple(blocks))


def _method(found: dict[str, Any]) -> str:
    return f", by {found['method']}" if found.get("method") else ""


def _remarks(found: dict[str, Any]) -> list[str]:
    """Say what models that had not seen the images think of their labels, and how far both lists agree."""
    remarks = []
    if folds := found.get("folds"):
        remarks.append(
            f"Models that had not seen them suspect {plural(round(folds['estimated']), 'training label')}."
        )
    if agreed := found.get("agreement"):
        remarks.append(
            f"Of the {count(agreed['top'])} most suspicious of each list, {count(len(agreed['both']))} are "
            f"on both (overlap {number(agreed['jaccard'])}; by chance {number(agreed['by_chance'])})."
        )
    return remarks


def _suspect(data: ReportData, audit: AuditFiles, split: str, index: int) -> Card:
    row = (audit.test if split == "test" else audit.train).iloc[index]
    label, better = (page_name(data.class_names[int(row[name])], most=24) for name in ("label", "suggested"))
    lines = (f"label {label}", f"suspicion {row['suspicion']:.2f}")
    return Card((Thumbs(split, (index,)),), f"{better}?", lines, _details(split, index))


def _details(split: str, index: int) -> str:
    return view(img=index) if split == "test" else view(set="train", train=index)


def difficulty_section(data: ReportData) -> Section | None:
    facts = data.audit.facts.get("difficulty") if data.audit else None
    if not facts:
        return None
    meanings = {
        "ambiguous": f"ambiguity {facts['ambiguity_from']:.2f} or more: would people agree on these?",
        "easy but wrong": f"wrong at {percent(facts['easy_from'])} or more: a label, a twin, a shortcut?",
        "hard but right": f"right at {percent(facts['hard_up_to'])} or less: the next model may lose these",
    }
    known = {one["kind"]: one for one in facts["kinds"]}
    cards, none = [], []
    for kind, meaning in meanings.items():
        number_of, images = known[kind]["count"], known[kind]["images"][:_KIND_IMAGES]
        if not number_of:
            none.append(Note(f"{kind.capitalize()}: no image ({meaning.partition(':')[0]})."))
        else:
            wrong = (f"{count(known[kind]['wrong'])} of them wrong",) if kind == "ambiguous" else ()
            title = f"{kind.capitalize()}: {plural(number_of, 'image')}"
            cards.append(Card((Thumbs("test", tuple(images)),), title, (meaning, *wrong), view(kind=kind)))
    lead = "Where the picture leaves the answer open, where the model errs without doubt, where it was lucky."
    return Section("Ambiguous, easy, hard", "difficulty", "Mistakes", lead, (Cards("", tuple(cards)), *none))


def duplicates_section(data: ReportData) -> Section | None:
    audit = data.audit
    facts = audit.facts.get("duplicates") if audit else None
    if audit is None or not facts:
        return None
    pairs = sorted(facts["pairs"], key=lambda p: (p["a_split"] == p["b_split"], p["same_label"]))
    leaked = facts.get("leaked", 0)
    number_of = facts.get("count", len(pairs))
    lead = "No near-duplicates were found." if not pairs else f"{plural(number_of, 'pair')} look alike."
    if leaked:
        lead = (
            f"{plural(leaked, 'test image')} {'has' if leaked == 1 else 'have'} a near-duplicate in the "
            f"training set, which flatters the accuracy{_without(facts)}."
        )
    blocks: list[Block] = []
    if pairs:
        caption = "Between the splits first, then those whose labels differ. Are they the same picture?"
        shown = tuple(_pair(data, audit, one) for one in pairs[:_PAIRS_LISTED])
        blocks.append(Cards(caption, shown[:_PAIRS_SHOWN], pairs=True))
        if rest := shown[_PAIRS_SHOWN:]:
            left_out = number_of - len(shown)
            caption = f"{plural(left_out, 'further pair')} not shown." if left_out else "The rest of them."
            blocks.append(Details(f"{plural(len(rest), 'more pair')}", (Cards(caption, rest, pairs=True),)))
    return Section("Duplicates", "duplicates", _GROUP, lead, tuple(blocks))


def _without(facts: dict[str, Any]) -> str:
    clean = facts.get("accuracy_without")
    if not clean:
        return ""
    return f": {percent(clean['value'], digits=2)} without them ({percent_range(*clean['interval'])})"


def _pair(data: ReportData, audit: AuditFiles, pair: dict[str, Any]) -> Card:
    thumbs, names = [], []
    for side in ("a", "b"):
        split, index = str(pair[f"{side}_split"]), int(pair[side])
        table = audit.test if split == "test" else audit.train
        label = page_name(data.class_names[int(table["label"].iloc[index])], most=20)
        thumbs.append(Thumbs(split, (index,)))
        names.append(f"{'test' if split == 'test' else 'training'} {index}: {label}")
    words = "same label" if pair["same_label"] else "labels differ"
    return Card(tuple(thumbs), words, (*names, f"{pair['kind']}, similarity {pair['similarity']:.3f}"))


def slices_section(data: ReportData) -> Section | None:
    audit = data.audit
    if audit is None or "slices" not in audit.facts:
        return None
    slices = audit.facts["slices"]
    if not slices:
        lead = "No group of images with an error rate of its own was confirmed on held-out images."
        return Section("Slices", "slices", _GROUP, lead, ())
    lead = (
        f"{plural(len(slices), 'group')} of images that fail together, found on one half of the test images "
        "and confirmed on the other: what do they have in common?"
    )
    cards = tuple(_slice(place, one) for place, one in enumerate(slices))
    return Section("Slices", "slices", _GROUP, lead, (Cards("The largest difference first.", cards),))


def _slice(place: int, facts: dict[str, Any]) -> Card:
    lines = [
        f"{percent(facts['error'])} wrong ({percent_range(*facts['interval'])}), "
        f"elsewhere {percent(facts['rest'])}",
        f"{plural(facts['size'], 'image')}, p {number(facts['p'])}",
        str(facts.get("evidence", "")),
    ]
    name = page_name(str(facts["name"]), most=120)
    title = f"Shortcut: {name}" if facts.get("shortcut") else name
    thumbs = Thumbs("test", tuple(int(i) for i in facts["rows"][:_SLICE_IMAGES]))
    return Card((thumbs,), title, tuple(line for line in lines if line), view(slice=place))


def confusions_section(data: ReportData) -> Section | None:
    audit = data.audit
    if audit is None or not audit.facts.get("confusions"):
        return None
    pairs = audit.facts["confusions"][:_CONFUSIONS]
    keys, names = class_keys(data.class_names), [page_name(name, most=32) for name in data.class_names]
    first = pairs[0]
    lead = (
        f"{names[first['true']]} taken for {names[first['predicted']]} leads with "
        f"{plural(first['count'], 'image')}; “the other way” tells a one-way confusion from a mutual one."
    )
    columns = (
        Column("True class → taken for"),
        Column("Images", numeric=True),
        Column("Share of true class", numeric=True),
        Column("95\u00a0% interval", numeric=True),
        Column("The other way", numeric=True),
        Column("p of the direction", numeric=True),
        Column("Median loss", numeric=True),
    )
    rows = tuple(
        (
            Link(
                f"{names[one['true']]} → {names[one['predicted']]}",
                view(true=keys[one["true"]], pred=keys[one["predicted"]], sort="loss"),
            ),
            count(one["count"]),
            percent(one["share"]),
            percent_range(*one["interval"]),
            count(one["reverse"]),
            "–" if one["p_direction"] is None else number(one["p_direction"]),
            number(one["median_loss"]),
        )
        for one in pairs
    )
    caption = "A high median loss: the model is sure of the wrong answer. A low one: it hesitates."
    table = Table(caption, columns, rows)
    return Section("Confused pairs", "confused-pairs", "Mistakes", lead, (table,))
