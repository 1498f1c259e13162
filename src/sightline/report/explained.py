"""Where the model looked: maps of the mistakes and of correct predictions."""

from __future__ import annotations

from sightline.report import maps, pictures
from sightline.report.load import Gallery, ReportData
from sightline.report.mistakes import mistake_tile
from sightline.report.sections import Block, Details, MapCard, MapCards, MapColumn, Picture, Section, Tile
from sightline.report.wording import page_name, percent

_GROUP = "Where it looked"


def mistakes_section(data: ReportData) -> Section | None:
    gallery = data.galleries.get("mistakes")
    if gallery is None:
        return None
    lead = (
        f"{data.method} at {data.main_layer}: on the left what spoke for the wrong answer, on the right "
        "what spoke for the true class; bright on the object and still wrong is another fault than bright "
        "beside it."
    )
    blocks: list[Block] = [_cards(data, gallery, data.main_layer)]
    for layer in gallery.maps:
        if layer != data.main_layer:
            title = f"The same at {layer} ({_cells(gallery, layer)})"
            blocks.append(Details(title, (_cards(data, gallery, layer),)))
    return Section(f"{data.method} of the mistakes", "where-mistakes", _GROUP, lead, tuple(blocks))


def correct_section(data: ReportData) -> Section | None:
    gallery = data.galleries.get("correct")
    if gallery is None:
        return None
    lead = (
        "Where the model is right, the bright part should be the object; a bright background is a shortcut "
        "that happens to work on this test set."
    )
    block = _cards(data, gallery, data.main_layer)
    return Section(f"{data.method} of correct predictions", "where-correct", _GROUP, lead, (block,))


def _cards(data: ReportData, gallery: Gallery, layer: str) -> MapCards:
    columns = {target: _columns(data, gallery, layer, target) for target in ("predicted", "label")}
    cards = []
    for place, index in enumerate(gallery.index):
        if data.predictions.correct[index]:
            cards.append(MapCard(_correct_tile(data, gallery, place), (columns["predicted"][place],)))
        else:
            both = (columns["predicted"][place], columns["label"][place])
            cards.append(MapCard(mistake_tile(data, gallery, place), both))
    caption = (
        f"Above: the map at the layer's own resolution ({_cells(gallery, layer)}), scaled to its largest "
        "value, black where nothing speaks for the class. Below: the same, smoothed, over the picture."
    )
    return MapCards(caption, tuple(cards))


def _columns(data: ReportData, gallery: Gallery, layer: str, target: str) -> list[MapColumn]:
    raw = gallery.maps[layer][target]  # (M, h, w)
    alone, overlaid = maps.alone(raw), maps.overlaid(gallery.images, raw)
    classes = data.predictions.predicted if target == "predicted" else data.predictions.labels
    columns = []
    for place, index in enumerate(gallery.index):
        name = page_name(data.class_names[classes[index]], most=24)
        heading = f"for {name}"
        if message := maps.message(raw[place]):
            nothing = Picture("", f"Map for {name}: {message}", message)
            columns.append(MapColumn(heading, nothing, nothing))
            continue
        alt = f"{data.method} map for {name} at {layer}, test image {index}"
        over = pictures.tile(overlaid[place], f"{alt}, over the picture")
        columns.append(MapColumn(heading, pictures.tile(alone[place], alt), over))
    return columns


def _correct_tile(data: ReportData, gallery: Gallery, place: int) -> Tile:
    index = int(gallery.index[place])
    name = page_name(data.class_names[data.predictions.labels[index]])
    picture = pictures.tile(gallery.images[place], f"Test image {index}, {name}, predicted right")
    return Tile((picture,), name, (f"{percent(data.predictions.confidence[index])} sure", f"image {index}"))


def _cells(gallery: Gallery, layer: str) -> str:
    height, width = gallery.maps[layer]["predicted"].shape[1:]
    return f"{height} × {width} cells"
