"""The modules of the page's scripts, one by one, in a real browser: numbers in, numbers out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from sightline.attribution import display
from sightline.audit.result import Cause
from sightline.report.bundle import MODULES
from sightline.report.gallery import COLORS, Columns, add_colors, add_maps, page_enums

pytestmark = pytest.mark.browser

ENUMS = page_enums()
NAMES = ["cat", "dog & co", "שלום", "a=b#c%"]
DATA = {
    **{"name": "made up", "train": 40, "test": 6, "class_names": ["Cat", "Dog", "Shalom", "Odd"]},
    "labels_sha256": {"train": "t" * 64, "test": "e" * 64},
}
MANIFEST = {
    **{"names": NAMES, "keys": NAMES, "run": "run", "tests": 6, "trainings": 40, "data": DATA, "epochs": 0},
    **{"grids": {}, "sprites": {}, "columns": {}, "slices": [{"name": "dark", "evidence": "e"}]},
    "fixes": [{"title": "look", "split": "test", "images": [11, 14, 30]}],
    "enums": ENUMS,
}
# Six test images; row 3 has no value to sort by, rows 0 and 4 have equal ones.
TEST = {
    **{"index": [10, 11, 12, 13, 14, 15], "label": [0, 0, 1, 1, 2, 2], "predicted": [0, 1, 1, 0, 2, 0]},
    **{"confidence": [0.9, 0.4, 0.6, 1.0, 0.5, 0.2], "loss": [0.1, 2.0, 0.5, None, 0.1, 3.0]},
    **{"cause": [0, 1, 0, 3, 0, 6], "difficulty": [0, 3, 0, 0, 2, 1], "slice": [-1, 0, -1, 0, -1, -1]},
}
TRAIN = {"index": [30, 31], "label": [0, 1], "suggested": [1, 1], "label_quality": [0.7, 0.2]}
# A report as the parts of a page share it, made of the tables above.
REPORT = """
  const columns = Object.fromEntries(Object.entries({ test, train }).flatMap(([split, table]) =>
    Object.entries(table).map(([name, values]) =>
      [`${split}.${name}`, Float32Array.from(values, (value) => value ?? NaN)])));
  const part = (split) => Object.fromEntries(Object.entries(columns)
    .filter(([name]) => name.startsWith(split))
    .map(([name, values]) => [name.slice(split.length + 1), values]));
  const tables = Object.fromEntries(["test", "train"].map((split) =>
    [split, { ...part(split), size: columns[`${split}.index`].length }]));
  const { Decisions } = await import("/decisions.js");
  const { EMPTY_VIEW } = await import("/address.js");
  const report = { manifest, tables, column: (name) => columns[name], decisions: new Decisions(manifest),
    view: EMPTY_VIEW, listed: [], active: 0 };
"""


@pytest.fixture(scope="module")
def page(browser):
    """An empty page whose modules are the package's own."""
    context = browser.new_context()
    context.route("**/*", serve)
    page = context.new_page()
    page.goto("http://scripts.test/")
    yield page
    context.close()


def serve(route) -> None:
    name = Path(route.request.url).name
    if name.endswith(".js"):
        route.fulfill(path=MODULES / name, content_type="text/javascript")
    else:
        route.fulfill(body="<!doctype html><title>modules</title>", content_type="text/html")


@pytest.fixture
def run(page):
    """Run the body of a function of `arguments` and return what it returns; `module(name)` imports."""

    def run(body: str, **arguments):
        names = ", ".join(arguments)
        code = f"async ({{ {names} }}) => {{ const module = (name) => import(`/${{name}}.js`);\n{body} }}"
        return page.evaluate(code, arguments)

    return run


def test_every_module_can_be_imported_alone(run):
    for path in sorted(MODULES.glob("*.js")):
        assert run("return Object.keys(await module(name));", name=path.stem) != [] or path.stem == "report"


# --- the address ------------------------------------------------------------------------------------------


def read_and_write(run, hash: str) -> tuple[dict, str]:
    return run(
        "const { readAddress, writeAddress } = await module('address');"
        "const view = readAddress(hash, manifest); return [view, writeAddress(view, manifest)];",
        hash=hash,
        manifest=MANIFEST,
    )


@pytest.mark.parametrize(
    ("hash", "meant"),
    [
        ("#gallery", {}),
        ("#true=cat&pred=dog%20%26%20co&sort=loss", {"true": 0, "pred": 1, "sort": "loss"}),
        ("#true=%D7%A9%D7%9C%D7%95%D7%9D&pred=a%3Db%23c%25", {"true": 2, "pred": 3}),
        (
            f"#is=right&kind={quote(ENUMS['kinds'][2])}&cause={quote(ENUMS['causes'][1])}",
            {"is": "right", "kind": ENUMS["kinds"][2], "cause": ENUMS["causes"][1]},
        ),
        ("#slice=0&done=no&fix=1&q=a%26b%3D%23", {"slice": 0, "done": "no", "fix": 1, "q": "a&b=#"}),
        ("#conf=12.5-70", {"low": 12.5, "high": 70}),
        ("#sort=margin&order=reversed&img=0", {"sort": "margin", "flip": True, "open": 0}),
        ("#set=train&sort=aum&train=77", {"set": "train", "sort": "aum", "open": 77}),
    ],
)
def test_an_address_is_read_and_written_back(run, hash, meant):
    view, again = read_and_write(run, hash)
    assert again == hash
    empty, _ = read_and_write(run, "")
    assert view == empty | meant


@pytest.mark.parametrize(
    "hash",
    [
        *(
            "#true=nobody",
            "#sort=constructor",
            "#is=maybe",
            "#img=-1",
            "#img=1e3",
            "#slice=x",
            "#cause=__proto__",
        ),
        *("#conf=9-x", "#conf=70-12", "#conf=0-101", "#conf=5", "#order=other", "#kind=hard", "#%E0%A4%A"),
    ],
)
def test_what_an_address_cannot_mean_is_left_out(run, hash):
    assert read_and_write(run, hash) == read_and_write(run, "")


# --- columns ----------------------------------------------------------------------------------------------


def test_columns_come_out_as_python_packed_them(run):
    columns = Columns()
    values = {
        **{"u8": [0, 255], "u16": [0, 65_535, 7], "u32": [70_000], "i8": [-128, 127], "i16": [-300]},
        **{"i32": [-70_000, 1], "empty": []},
    }
    for name, numbers in values.items():
        columns.add_integers(name, np.array(numbers, np.int64))
    columns.add_floats("f32", np.array([0.5, -1.25, np.nan]))
    kinds = {name: columns.places[name][0] for name in values}
    assert [kind for name, kind in kinds.items() if name != "empty"] == [n for n in values if n != "empty"]
    found = run(
        "const { decodeBase64, openColumns } = await module('payload');"
        "const column = openColumns(places, decodeBase64(text));"
        "return [Object.keys(places).map((name) => [name, [...column(name)]]),"
        " column('other') === undefined && column('constructor') === undefined];",
        places=columns.places,
        text=columns.base64,
    )
    assert found[1] is True
    unpacked = dict(found[0])
    assert {name: unpacked[name] for name in values} == values
    assert unpacked["f32"][:2] == [0.5, -1.25]
    assert np.isnan(unpacked["f32"][2])


def test_base64_is_read_with_and_without_the_browsers_own_reader(run):
    raw = bytes(range(256)) * 3 + b"x"
    found = run(
        "const { decodeBase64 } = await module('payload');"
        "const one = [...decodeBase64(text)]; const own = Uint8Array.fromBase64;"
        "try { Uint8Array.fromBase64 = undefined; return [one, [...decodeBase64(text)]]; }"
        "finally { Uint8Array.fromBase64 = own; }",
        text=base64.b64encode(raw).decode(),
    )
    assert found == [list(raw), list(raw)]


def test_a_table_has_its_columns_and_finds_the_row_of_an_image(run):
    columns = Columns()
    columns.add_integers("test.index", np.array([4, 9, 7]))
    columns.add_integers("test.label", np.array([1, 0, 2]))
    columns.add_integers("tester.label", np.array([5]))
    found = run(
        "const { decodeBase64, openColumns, tableOf } = await module('payload');"
        "const { row, ...rest } = tableOf(places, openColumns(places, decodeBase64(text)), 'test');"
        "return [Object.keys(rest).sort(), rest.size, [...rest.label], row.get(9), row.get(5) ?? null];",
        places=columns.places,
        text=columns.base64,
    )
    assert found == [["index", "label", "size"], 3, [1, 0, 2], 1, None]


# --- heat -------------------------------------------------------------------------------------------------


def test_heat_is_that_of_the_packages_figures(run):
    maps = np.random.default_rng(3).normal(0, 1, (3, 5, 4)).astype(np.float32)
    maps[1], maps[2, 0, 0] = -1, np.nan
    columns = Columns()
    add_maps(columns, "m", maps)
    heats = run(
        "const { decodeBase64, openColumns } = await module('payload');"
        "const { gridOf, heatOf } = await module('heat');"
        "const column = openColumns(places, decodeBase64(text));"
        "return [0, 1, 2].map((row) => { const cells = gridOf(column, 'm', row, [5, 4]);"
        " const heat = cells && heatOf(cells, [5, 4], 12);"
        " return [cells && [...cells], heat && [...heat]]; });",
        places=columns.places,
        text=columns.base64,
    )
    np.testing.assert_allclose(heats[0][0], maps[0].ravel(), atol=np.abs(maps[0]).max() / 127)
    expected = display.heatmap(np.reshape(heats[0][0], (1, 5, 4)).astype(np.float32), (12, 12))[0]
    np.testing.assert_allclose(np.reshape(heats[0][1], (12, 12)), expected, atol=1e-5)
    assert heats[1][1] is None  # nothing is positive
    assert heats[2] == [None, None]  # not finite


def test_heat_is_coloured_by_its_value_and_covers_by_its_opacity(run):
    columns = Columns()
    add_colors(columns)
    pixels = run(
        "const { decodeBase64, openColumns } = await module('payload');"
        "const { colored } = await module('heat');"
        "const colors = openColumns(places, decodeBase64(text))(name);"
        "const heat = Float32Array.of(0, 0.25, 0.5, 1);"
        "return [[...colored(heat, colors, { opacity: 0.6, least: 0.4 })], [...colors]];",
        places=columns.places,
        text=columns.base64,
        name=f"colors.{COLORS[0]}",
    )
    drawn, colors = np.reshape(pixels[0], (4, 4)), np.reshape(pixels[1], (256, 3))
    assert drawn[:, :3].tolist() == colors[[0, 64, 128, 255]].tolist()
    assert drawn[:, 3].tolist() == [
        0,
        0,
        76,
        153,
    ]  # 255 * 0.6 * heat, and nothing below 0.4; 76.5 goes to even
    assert (colors[0] == [0, 0, 3]).all() or (colors[0] == [0, 0, 4]).all()  # inferno begins almost black


# --- the gallery's rows -----------------------------------------------------------------------------------


def listed(run, view: dict, decided: tuple = ()) -> list[int]:
    return run(
        REPORT + "for (const [split, index] of decided) report.decisions.decide(split, index, 'keep');"
        "report.view = { ...EMPTY_VIEW, ...view };"
        "const { listedRows } = await module('rows');"
        "return listedRows(report).map((row) => tables[report.view.set].index[row]);",
        **{"manifest": MANIFEST, "test": TEST, "train": TRAIN, "view": view, "decided": list(decided)},
    )


@pytest.mark.parametrize(
    ("view", "images"),
    [
        ({}, [15, 11, 12, 10, 14, 13]),  # the highest loss first, equals in order, not known last
        ({"flip": True}, [10, 14, 12, 11, 15, 13]),
        ({"sort": "index"}, [10, 11, 12, 13, 14, 15]),
        ({"sort": "confidence"}, [13, 10, 12, 14, 11, 15]),
        ({"true": 0}, [11, 10]),
        ({"pred": 0}, [15, 10, 13]),
        ({"true": 2, "pred": 0}, [15]),
        ({"is": "wrong"}, [15, 11, 13]),
        ({"is": "right"}, [12, 10, 14]),
        ({"kind": ENUMS["kinds"][2]}, [11]),
        ({"cause": Cause.SHORTCUT}, [13]),
        ({"cause": Cause.UNEXPLAINED}, [15]),
        ({"slice": 0}, [11, 13]),
        ({"low": 40, "high": 60}, [11, 14]),  # from 40 on and below 60
        ({"low": 60, "high": 100}, [12, 10, 13]),  # 100 itself is in
        ({"q": "CAT"}, [15, 11, 10, 13]),
        ({"q": "#12"}, [12]),
        ({"q": "no such class"}, []),
        ({"fix": 1}, [11, 14]),
        ({"fix": 9}, [15, 11, 12, 10, 14, 13]),
        ({"set": "train"}, [31, 30]),
        ({"set": "train", "fix": 1}, []),
        ({"set": "train", "pred": 1, "true": 0}, [30]),
        # what is no filter of training images does not hide them
        ({"set": "train", "is": "wrong", "slice": 0}, [31, 30]),
    ],
)
def test_filters_and_sort_list_the_images_that_a_reader_expects(run, view, images):
    assert listed(run, view) == images


def test_decided_images_can_be_listed_and_left_out(run):
    decided = (("test", 12), ("train", 31), ("test", 30))
    assert listed(run, {"done": "yes"}, decided) == [12]
    assert listed(run, {"done": "no"}, decided) == [15, 11, 10, 14, 13]
    assert listed(run, {"done": "yes", "set": "train"}, decided) == [31]


# --- decisions --------------------------------------------------------------------------------------------


def after(run, code: str, manifest: dict = MANIFEST, **arguments):
    """What `code` returns, which has `decisions` and the number of times that they changed."""
    return run(
        "const { Decisions } = await module('decisions'); const decisions = new Decisions(manifest);"
        f"let changes = 0; decisions.changed = () => {{ changes += 1; }};\n{code}",
        manifest=manifest,
        **arguments,
    )


def fixes(*decisions, **other) -> str:
    head = {"format": ENUMS["fixes_format"], "version": ENUMS["fixes_version"], "data": DATA}
    return json.dumps(head | {"decisions": list(decisions)} | other)


def test_decisions_are_made_changed_and_taken_back(run):
    found = after(
        run,
        """
        decisions.decide("train", 3, "relabel", { label: "Dog", note: "n".repeat(600) });
        decisions.decide("test", 5, "drop", { label: "Dog" });
        decisions.decide("test", 1, "keep");
        decisions.decide("train", 3, "keep", { label: "Cat" });
        decisions.decide("test", 5, "");
        return [decisions.file(), changes, decisions.of("test", 5) ?? null];
        """,
    )
    file, changes, gone = found
    assert (changes, gone) == (5, None)
    assert {key: file[key] for key in ("format", "version", "data")} == {
        **{"format": "sightline-fixes", "version": 2, "data": DATA}
    }
    assert file["decisions"] == [
        {"split": "test", "index": 1, "action": "keep", "note": ""},
        {"split": "train", "index": 3, "action": "keep", "note": "n" * 500},
    ]


def test_exported_decisions_come_back_and_join_those_already_made(run):
    text = fixes(
        {"split": "train", "index": 39, "action": "relabel", "label": "Odd", "note": "<b>"},
        {"split": "test", "index": 0, "action": "drop", "label": "Cat", "note": None},
        {"split": "test", "index": 2, "action": "keep"},
    )
    words, made, changes, again = after(
        run,
        'decisions.decide("test", 2, "drop", { note: "before" }); decisions.decide("test", 4, "keep");'
        "const words = decisions.take(text); const file = decisions.file();"
        "const other = new Decisions(manifest); other.take(JSON.stringify(file));"
        "return [words, file.decisions, changes, JSON.stringify(other.file()) === JSON.stringify(file)];",
        text=text,
    )
    assert (words, changes, again) == ("", 3, True)
    assert made == [
        {"split": "test", "index": 0, "action": "drop", "note": ""},
        {"split": "test", "index": 2, "action": "keep", "note": ""},
        {"split": "test", "index": 4, "action": "keep", "note": ""},
        {"split": "train", "index": 39, "action": "relabel", "label": "Odd", "note": "<b>"},
    ]


KEEP = {"split": "test", "index": 1, "action": "keep"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        *((text, "not a fixes.json of version 2") for text in ("[]", "null", "7", '"text"', "{}", "[null]")),
        ('{"decisions":[null]}', "not a fixes.json of version 2"),
        (fixes(format="other"), "not a fixes.json of version 2"),
        (fixes(version="1"), "not a fixes.json of version 2"),
        (fixes(version=3), "not a fixes.json of version 2"),
        *((fixes(decisions=wrong), "not a fixes.json") for wrong in (None, {}, "x", 3)),
        *((fixes(KEEP, data=wrong), "about other data") for wrong in (None, [], {}, {"labels_sha256": 3})),
        (fixes(KEEP, data=DATA | {"labels_sha256": {"train": "t" * 64, "test": "x"}}), "about other data"),
        *(
            (fixes(KEEP, wrong), "Decision 2 of 2 fits no image, action or class")
            for wrong in (
                *(None, 7, "text", [], {}, [[]], True),
                *(KEEP | {"split": split} for split in (None, "valid", "__proto__", ["test"], 0)),
                *(KEEP | {"index": index} for index in (None, -1, 6, 1.5, "1", [1], True)),
                *(KEEP | {"action": action} for action in (None, "", "toString", ["keep"], "delete")),
                *(KEEP | {"action": "relabel", "label": label} for label in (None, "cat", 0, ["Cat"])),
                *(KEEP | {"note": note} for note in (3, {"toString": None}, ["note"])),
            )
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole_in_one_sentence(run, text, words):
    said, made, changes = after(
        run, "return [decisions.take(text), decisions.made.size, changes];", text=text
    )
    assert words in said
    assert said.endswith(".")
    assert "\n" not in said
    assert len(said) < 120
    assert (made, changes) == (0, 0)


def test_a_file_nested_without_end_is_refused_as_well(run):
    deep = "[" * 50_000 + "]" * 50_000
    text = fixes(KEEP)[:-2] + f", {deep}]}}"
    assert "Decision 2 of 2 fits no" in after(run, "return decisions.take(text);", text=text)
    text = fixes(KEEP)[:-1] + f', "data": {{"labels_sha256": {{"train": {deep}}}}}}}'
    assert "about other data" in after(run, "return decisions.take(text);", text=text)


# --- thresholds -------------------------------------------------------------------------------------------


def test_answers_and_sets_are_counted_as_slow_loops_count_them(run):
    generator = np.random.default_rng(7)
    shares = -np.sort(-generator.dirichlet(np.full(4, 0.5), 50), axis=1)
    packed = np.rint(65535 * shares).astype(int)
    label, predicted = generator.integers(0, 3, 50), generator.integers(0, 3, 50)
    loss = -np.log(shares[np.arange(50), generator.integers(0, 4, 50)])
    loss[0] = 0
    for least in (0.001, 0.1, 0.5, 0.9, 1.0):
        answers, sets = run(
            "const { countAnswers, countSets } = await module('threshold');"
            "return [countAnswers({ confidence, label, predicted }, least),"
            " countSets({ loss, top_share: packed }, least)];",
            confidence=shares[:, 0].tolist(),
            label=label.tolist(),
            predicted=predicted.tolist(),
            loss=loss.tolist(),
            packed=packed.ravel().tolist(),
            least=least,
        )
        sure = shares[:, 0] >= least
        assert answers == {"answered": sure.sum(), "wrong": (sure & (label != predicted)).sum()}
        inside = (packed / 65535 >= least).sum(axis=1)
        assert sets["sizes"] == np.bincount(inside, minlength=5).tolist()
        assert (sets["total"], sets["covered"]) == (inside.sum(), (np.exp(-loss) >= least).sum())


# --- the rest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "key", "control", "end"),
    [
        *(("b", "ArrowRight", False, "c"), ("a", "ArrowRight", False, "b"), ("c", "ArrowRight", False, None)),
        *(("c", "ArrowLeft", False, "b"), ("a", "ArrowLeft", False, None)),
        *(("a", "ArrowDown", False, "e"), ("e", "ArrowUp", False, "a"), ("c", "ArrowDown", False, "d")),
        *(("d", "Home", False, "d"), ("b", "Home", False, "a"), ("b", "End", False, "c")),
        *(("e", "Home", True, "a"), ("a", "End", True, "e"), ("a", "ArrowRight", True, "nothing")),
        ("a", "x", False, "nothing"),
    ],
)
def test_keys_lead_through_a_matrix_past_its_empty_cells(run, start, key, control, end):
    cells = [
        [None, None, None, None],
        [None, "a", "b", "c"],
        [None, None, None, "d"],
        [None, "e", None, None],
    ]
    code = "const { nextCell } = await module('matrix'); const next = nextCell(cells, start, key, control);"
    found = run(
        f"{code} return next === undefined ? 'nothing' : next;",
        **{"cells": cells, "start": start, "key": key, "control": control},
    )
    assert found == end


def test_every_cause_that_python_knows_has_words_for_an_image(run):
    known = [str(cause) for cause in Cause]
    assert run("return Object.keys((await module('details')).CAUSE_WORDS);") == known


def test_the_view_of_a_comparison_is_read_and_written_back(run):
    manifest = {"groups": ["fixed", "broken"], "keys": NAMES}
    for hash, view in (
        ("#group=broken&true=dog%20%26%20co", {"group": 1, "true": 1}),
        ("#group=fixed", {"group": 0, "true": None}),
    ):
        assert run(
            "const { readComparisonView, writeComparisonView } = await module('comparison');"
            "const view = readComparisonView(manifest, hash);"
            "return [view, writeComparisonView(manifest, view)];",
            manifest=manifest,
            hash=hash,
        ) == [view, hash]


def test_a_small_picture_is_drawn_at_a_whole_multiple_of_its_size_and_a_photograph_fills_its_place(run):
    sizes = run(
        "const { drawnSize } = await module('pictures');"
        "return [[32, 32, 96], [28, 28, 96], [64, 32, 96], [200, 100, 96], [33, 33, 96]]"
        ".map(([width, height, wanted]) => drawnSize({ width, height }, wanted));"
    )
    assert sizes == [[96, 96], [84, 84], [64, 32], [96, 48], [99, 99]]
