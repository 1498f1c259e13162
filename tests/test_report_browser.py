"""The interactive report in a real browser: a click, a key or an address shows what the tables hold."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from report_audit_fixture import add_audit, photo_like
from report_fixture import predictions_of, write_run

from sightline.attribution import display
from sightline.audit import compare_predictions
from sightline.predictions.table import read_predictions
from sightline.report import read_run, render_page, write_comparison, write_report

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>document.title = 'broken'</script>",
    "\"quotes\" & 'others'",
    "שלום\u202e",
    "<img src=x onerror=alert(1)>",
    "x" * 10_000,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "demo", predictions=predictions_of(n=300))
    write_report(add_audit(folder))
    return folder


@pytest.fixture(scope="module")
def table(run):
    return pd.read_parquet(run / "audit_test.parquet")


class Visit:
    """A page, what it asked for and what it complained about."""

    def __init__(self, browser, address: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.go(address)

    def go(self, address: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]")
        self.address = address

    def outside(self) -> list[str]:
        own = ("data:", "blob:", "about:", self.address.split("#")[0])
        return [url for url in self.asked if not url.startswith(own)]

    def shown(self) -> list[int]:
        """The indices of the tiles in the page, from the first row on."""
        return self.page.evaluate("[...document.querySelectorAll('.tile')].map(t => +t.dataset.index)")

    def text(self, place: str, start: str) -> None:
        """Wait until the text at `place` begins so. The page's policy lets no test evaluate a string."""
        self.page.wait_for_selector(f'{place}:text-matches("^{start}")')

    def count(self) -> int:
        return int(self.page.inner_text("#count").split()[0].replace(",", ""))


@pytest.fixture
def visit(browser, run):
    visits = []

    def open_at(hash: str = "", **options) -> Visit:
        address = options.pop("address", (run / "report.html").as_uri())
        visits.append(Visit(browser, address + hash, **options))
        return visits[-1]

    yield open_at
    for one in visits:
        assert one.outside() == []
        assert one.said == []
        one.context.close()


def expected(table: pd.DataFrame, chosen: pd.Series, by: str = "loss", ascending: bool = False) -> list[int]:
    return table[chosen].sort_values(by, ascending=ascending, kind="stable").index.tolist()


def test_filters_and_sorts_show_the_rows_of_the_table(visit, table, run):
    here = visit()
    wrong = table["label"] != table["predicted"]
    everything = expected(table, wrong | True)
    assert here.count() == 300
    assert here.shown() == everything[: len(here.shown())]
    page = here.page
    for control, value, chosen in (
        ("#f-true", "2", table["label"] == 2),
        ("#f-pred", "1", table["predicted"] == 1),
        ("#f-is", "wrong", wrong),
        ("#f-is", "right", ~wrong),
        ("#f-kind", "easy but wrong", table["difficulty"] == "easy but wrong"),
        ("#f-cause", "shortcut", table["cause"] == "shortcut"),
        ("#f-slice", "1", table["slice"] == 1),
    ):
        page.select_option(control, value)
        assert here.count() == int(chosen.sum()), control
        assert here.shown() == expected(table, chosen)[: len(here.shown())]
        page.click("#clear")
    page.fill("#f-low", "40")
    page.fill("#f-high", "60")
    assert here.count() == int(((table["confidence"] >= 0.4) & (table["confidence"] < 0.6)).sum())
    page.click("#clear")
    for by, ascending in (("margin", True), ("ambiguity", False), ("label_quality", True), ("index", True)):
        page.select_option("#f-sort", by)
        assert here.shown() == expected(table, wrong | True, by, ascending)[: len(here.shown())]
    page.check("#f-flip")
    assert here.shown()[0] == 299


def test_search_finds_class_names_and_numbers(visit, table):
    here = visit()
    here.page.fill("#f-q", "AIRPL")
    assert here.count() == int(((table["label"] == 0) | (table["predicted"] == 0)).sum())
    here.page.fill("#f-q", "#217")
    assert here.shown() == [217]


def test_only_rows_in_sight_are_in_the_page_and_scrolling_brings_the_others(visit, table):
    here = visit("#sort=index")
    assert 0 < len(here.shown()) < 100
    here.page.evaluate("document.querySelector('#grid').scrollTop = 1e6")
    here.page.wait_for_selector(".tile[data-index='299']")
    assert len(here.shown()) < 100
    assert here.shown() == sorted(here.shown())


def test_a_tile_shows_the_picture_of_its_own_index(visit, run):
    here = visit("#sort=index")
    with np.load(run / "gallery.npz") as arrays:
        pictures = arrays["thumbnails"]
    for index in (0, 17, 299):
        here.page.evaluate(f"location.hash = '#img={index}'")
        here.page.wait_for_selector(f"#viewer[open] >> text=Test image {index}")
        mean = here.page.evaluate(
            """async () => {
              const style = document.querySelector('#d-image').style;
              const image = new Image();
              image.src = style.backgroundImage.slice(5, -2);
              await image.decode();
              const drawn = parseFloat(style.width), scale = image.width / parseFloat(style.backgroundSize);
              const [x, y] = style.backgroundPosition.split(' ').map(v => -parseFloat(v) * scale);
              const canvas = new OffscreenCanvas(drawn * scale, drawn * scale), pen = canvas.getContext('2d');
              pen.drawImage(image, -x, -y);
              const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
              const sums = [0, 0, 0];
              for (let k = 0; k < data.length; k++) if (k % 4 < 3) sums[k % 4] += data[k];
              return sums.map(s => s / (data.length / 4));
            }"""
        )
        assert mean == pytest.approx(pictures[index].mean(axis=(0, 1)), abs=6)


def test_a_cell_of_the_matrix_leads_to_its_images(visit, table):
    here = visit()
    cell = here.page.locator(".matrix td:not(.diagonal) a").first
    number = int(cell.inner_text())
    cell.click()
    here.text("#count", f"{number} of")
    true, guess = here.page.input_value("#f-true"), here.page.input_value("#f-pred")
    chosen = (table["label"] == int(true)) & (table["predicted"] == int(guess))
    assert chosen.sum() == number
    assert here.shown() == expected(table, chosen)
    here.page.go_back()
    assert here.page.evaluate("location.hash") == ""


def test_an_address_restores_a_view_and_back_and_forward_follow(visit, table):
    here = visit("#true=cat&pred=bird&sort=margin&order=reversed")
    chosen = (table["label"] == 3) & (table["predicted"] == 2)
    assert here.shown() == expected(table, chosen, "margin")
    index = here.shown()[0]
    here.page.click(".tile")
    here.page.wait_for_selector("#viewer[open]")
    hash = f"#true=cat&pred=bird&sort=margin&order=reversed&img={index}"
    assert here.page.evaluate("location.hash") == hash
    here.page.go_back()
    here.page.wait_for_selector("#viewer", state="hidden")
    here.page.go_forward()
    here.page.wait_for_selector("#viewer[open]")
    again = visit(hash)
    assert again.page.inner_text("#d-title") == f"Test image {index}"
    nonsense = visit("#true=nobody&sort=constructor&img=99999&slice=-1&conf=9-x")
    assert nonsense.count() == 300
    assert not nonsense.page.is_visible("#viewer")


def test_keys_alone_move_open_look_decide_and_close(visit, table):
    here = visit()
    keys, order = here.page.keyboard, expected(table, table["label"] >= 0)
    keys.press("j")
    keys.press("j")
    keys.press("k")
    keys.press("ArrowRight")
    active = "document.querySelector('#grid').getAttribute('aria-activedescendant')"
    assert here.page.evaluate(active) == f"tile-test-{order[2]}"
    keys.press("Enter")
    assert here.page.inner_text("#d-title") == f"Test image {order[2]}"
    keys.press("ArrowRight")
    assert here.page.inner_text("#d-title") == f"Test image {order[3]}"
    keys.press("m")
    assert here.page.get_attribute("[data-map=true]", "aria-checked") == "true"
    keys.press("3")
    assert here.page.inner_text("#d-title") == f"Test image {order[4]}"
    keys.press("ArrowLeft")
    assert here.page.get_attribute("[data-action=drop]", "aria-pressed") == "true"
    keys.press("Escape")
    assert not here.page.is_visible("#viewer")
    assert here.page.evaluate("document.activeElement.id") == "grid"
    assert here.page.inner_text(f"#tile-test-{order[3]} .mark") == "Drop"
    keys.press("/")
    assert here.page.evaluate("document.activeElement.id") == "f-q"
    keys.type("j?")
    assert here.page.input_value("#f-q") == "j?"
    keys.press("Escape")
    keys.press("?")
    assert here.page.is_visible("#help")


FOCUSED = "document.activeElement"


def test_the_heat_maps_are_one_group_of_radio_buttons(visit, table):
    wrong = np.flatnonzero(table["label"] != table["predicted"])
    here = visit(f"#img={wrong[4]}")
    keys, page = here.page.keyboard, here.page
    title = page.inner_text("#d-title")
    stops = "[...document.querySelectorAll('#d-which [tabindex=\"0\"]')].map(b => b.dataset.map)"
    checked = "[...document.querySelectorAll('#d-which [aria-checked=true]')].map(b => b.dataset.map)"
    assert page.evaluate(stops) == page.evaluate(checked) == ["predicted"]
    page.focus("#d-next")
    keys.press("Tab")  # to ×
    keys.press("Tab")
    for key, name in (
        *((None, "predicted"), ("ArrowRight", "true"), ("ArrowDown", "difference"), ("ArrowRight", "none")),
        *(("ArrowLeft", "difference"), ("ArrowUp", "true"), ("Home", "none"), ("End", "difference")),
    ):
        if key:
            keys.press(key)
        assert page.evaluate(f"{FOCUSED}.dataset.map") == name
        assert page.evaluate(stops) == page.evaluate(checked) == [name]
    assert "rather than" in page.inner_text("#d-said")
    page.evaluate("document.querySelector('[data-map=true]').focus()")
    keys.press("Space")
    assert page.evaluate(checked) == ["true"]
    assert page.evaluate(f"{FOCUSED}.dataset.map") == "true"
    assert page.inner_text("#d-title") == title  # no key went on to another image
    keys.press("j")
    assert page.inner_text("#d-title") != title
    assert page.evaluate(f"{FOCUSED}.closest('dialog').id") == "viewer"


def test_the_matrix_is_one_tab_stop_and_arrow_keys_lead_to_every_cell_with_images(visit, table):
    here = visit()
    keys, page = here.page.keyboard, here.page
    counts = pd.crosstab(table["label"], table["predicted"]).to_numpy()
    assert (counts > 0).all()  # so that the keys below land where they would in a full grid
    focusable = "[...document.querySelectorAll('#confusion-matrix :is(a, button, [tabindex])')]"
    assert page.evaluate(f"{focusable}.filter(e => e.tabIndex === 0).length") == 1
    page.evaluate(f"{focusable}.find(e => e.tabIndex === 0).focus()")
    where = f"(c => [c.parentElement.rowIndex - 1, c.cellIndex - 1])({FOCUSED}.closest('td'))"
    last = len(counts) - 1
    for key, cell in (
        *(("ArrowRight", [0, 1]), ("ArrowDown", [1, 1]), ("ArrowLeft", [1, 0]), ("ArrowLeft", [1, 0])),
        *(("End", [1, last]), ("ArrowUp", [0, last]), ("ArrowUp", [0, last]), ("Control+End", [last, last])),
        *(("Home", [last, 0]), ("Control+Home", [0, 0]), ("ArrowDown", [1, 0]), ("ArrowRight", [1, 1])),
        ("ArrowRight", [1, 2]),
    ):
        keys.press(key)
        assert page.evaluate(where) == cell, key
        assert page.evaluate(f"{focusable}.filter(e => e.tabIndex === 0).length") == 1
    keys.press("Tab")
    keys.press("Shift+Tab")
    assert page.evaluate(where) == [1, 2]  # the place is kept
    keys.press("Enter")
    here.text("#count", f"{counts[1, 2]} of")
    assert here.shown() == expected(table, (table["label"] == 1) & (table["predicted"] == 2))


def test_a_matrix_of_a_hundred_classes_is_one_tab_stop(visit, tmp_path):
    names = tuple(f"class {c}" for c in range(100))
    folder = add_audit(write_run(tmp_path / "many", predictions=predictions_of(names, n=600)))
    here = visit(address=write_report(folder).as_uri())
    links = "[...document.querySelectorAll('#confusion-matrix td a')]"
    assert here.page.evaluate(f"{links}.length") > 200
    assert here.page.evaluate(f"{links}.filter(a => a.tabIndex === 0).length") == 1
    # empty cells are passed over, and the last cell with images of the row is found
    here.page.evaluate(f"{links}.find(a => a.tabIndex === 0).focus()")
    here.page.keyboard.press("End")
    here.page.keyboard.press("ArrowRight")
    last = "[...document.activeElement.closest('tr').querySelectorAll('a')].at(-1) === document.activeElement"
    assert here.page.evaluate(last)


def test_after_a_link_into_the_gallery_its_keys_work(visit, table):
    here = visit()
    cell = here.page.locator(".matrix td.diagonal a").first
    cell.click()
    here.text("#count", f"{cell.inner_text()} of")
    first, second = here.shown()[:2]
    here.page.keyboard.press("Enter")
    assert here.page.inner_text("#d-title") == f"Test image {first}"
    here.page.keyboard.press("Escape")
    here.page.keyboard.press("j")
    here.page.keyboard.press("Enter")
    assert here.page.inner_text("#d-title") == f"Test image {second}"
    again = visit("#true=cat&pred=bird")  # an address that was sent to somebody
    again.page.keyboard.press("Enter")
    assert again.page.inner_text("#d-title") == f"Test image {again.shown()[0]}"


def test_a_search_without_hits_is_answered_in_a_sentence(visit):
    here = visit()
    assert not here.page.is_visible("#nothing")
    here.page.fill("#f-q", "no class is called so")
    assert here.shown() == []
    assert here.page.inner_text("#nothing").startswith("No test image fits this search")
    assert here.page.is_visible("#nothing")
    here.page.keyboard.press("Escape")  # leaves the search for the list
    assert here.page.evaluate(f"{FOCUSED}.id") == "grid"
    here.page.click("#clear")
    assert not here.page.is_visible("#nothing")
    assert here.page.evaluate(f"{FOCUSED}.id") == "grid"
    assert here.count() == 300


def test_decisions_that_cannot_be_read_are_answered_in_a_sentence(visit, run, tmp_path):
    card = json.loads((run / "data.json").read_text(encoding="utf-8"))["fingerprint"]
    head = {"format": "sightline-fixes", "version": 1, "data": card}
    here = visit()
    path = tmp_path / "fixes.json"
    for content, words in (
        (head | {"decisions": [None]}, "Decision 1 of 1 fits no image"),
        (head | {"decisions": [{"split": "test", "index": "4", "action": "keep"}]}, "Decision 1 of 1 fits"),
        ({"decisions": [None]}, "not a fixes.json"),
        (head | {"decisions": []}, "0 decisions in all"),
        ([], "not a fixes.json"),
    ):
        path.write_text(json.dumps(content), encoding="utf-8")
        here.page.set_input_files("#import-file", path)
        here.page.wait_for_selector(f"#decided-said:has-text('{words}')")
    assert here.page.inner_text("#decided-count") == "No decisions yet"


def test_an_open_image_says_what_the_tables_say(visit, table, run):
    wrong = np.flatnonzero(table["label"] != table["predicted"])
    index = int(wrong[4])
    here = visit(f"#img={index}")
    predictions = read_predictions(run / "predictions.parquet")
    best = np.argsort(-predictions.probabilities[index], kind="stable")[:5]
    rows = here.page.locator(".probable li").all_inner_texts()
    assert [row.split("\n")[0] for row in rows] == [predictions.class_names[c] for c in best]
    assert [float(row.split("\n")[-1].split("\u00a0")[0]) for row in rows] == pytest.approx(
        100 * predictions.probabilities[index][best], abs=0.06
    )
    assert f"{table['loss'][index]:.2f}" in here.page.inner_text("#d-facts")
    with np.load(run / "audit_neighbors.npz") as arrays:
        neighbours = arrays["indices"][arrays["rows"].tolist().index(index)]
    near = here.page.evaluate(
        "[...document.querySelectorAll('#d-near .row:last-child a')].map(a => +a.dataset.index)"
    )
    assert near == neighbours.tolist()
    here.page.click("#d-near .row:last-child a >> nth=0")
    here.page.wait_for_selector(f"#viewer[open] >> text=Training image {neighbours[0]}")
    assert here.page.locator("#d-curve circle").count() == 9


def test_heat_in_the_page_is_the_packages_own(visit, table, run):
    with np.load(run / "gallery.npz") as arrays:
        predicted, true = arrays["maps_predicted"].astype(float), arrays["maps_true"].astype(float)
    wrong = np.flatnonzero(table["label"] != table["predicted"])
    index = int(wrong[3])
    here = visit(f"#img={index}")
    here.page.evaluate(
        "o => { o.value = 100; o.dispatchEvent(new Event('input')); }", here.page.query_selector("#d-opacity")
    )
    for which, raw in (("predicted", predicted), ("true", true), ("difference", predicted - true)):
        here.page.click(f"[data-map={which}]")
        alpha = here.page.evaluate(
            """() => { const heat = document.querySelector('#d-heat');
            const c = new OffscreenCanvas(heat.width, heat.height);
            c.getContext('2d').drawImage(heat, 0, 0);
            const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
            return [...data].filter((_, k) => k % 4 === 3) }"""
        )
        heat = display.heatmap(raw[index : index + 1], (192, 192))[0]
        # a byte for the grid's values and one for the opacity: an error of about 1/127 and 1/255
        np.testing.assert_allclose(np.reshape(alpha, (192, 192)) / 255, heat, atol=0.02)


@pytest.mark.parametrize(("place", "words"), [(0, "Nothing here speaks"), (1, "not finite")])
def test_a_map_that_cannot_be_drawn_is_words(visit, table, place, words):
    index = int(np.flatnonzero(table["label"] != table["predicted"])[place])
    here = visit(f"#img={index}")
    assert words in here.page.inner_text("#d-said")
    assert not here.page.is_visible("#d-heat")


def test_decisions_travel_out_and_back_as_the_file_says(visit, run, table, tmp_path):
    here = visit("#sort=index")
    page = here.page
    page.click("#tile-test-4")
    page.select_option("#d-label", "1")
    page.click("[data-action=relabel]")
    page.fill("#d-note", 'a "note" <b>')
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("2")
    page.evaluate("location.hash = '#set=train&sort=label_quality'")
    page.wait_for_selector(".tile[id^=tile-train]")
    train = here.shown()[0]
    page.focus("#grid")
    page.keyboard.press("1")
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "fixes.json"
    path = tmp_path / "fixes.json"
    download.value.save_as(path)
    fixes = json.loads(path.read_text(encoding="utf-8"))
    card = json.loads((run / "data.json").read_text(encoding="utf-8"))["fingerprint"]
    labels = pd.read_parquet(run / "audit_train.parquet")
    assert {key: fixes[key] for key in ("format", "version", "data")} == {
        **{"format": "sightline-fixes", "version": 2, "data": card}
    }
    assert (
        card["labels_sha256"]["test"] == hashlib.sha256(table["label"].to_numpy("<i8").tobytes()).hexdigest()
    )
    names = card["class_names"]
    assert fixes["decisions"] == [
        {"split": "test", "index": 4, "action": "relabel", "label": names[1], "note": 'a "note" <b>'},
        {"split": "test", "index": 5, "action": "keep", "note": ""},
        {
            **{"split": "train", "index": train, "action": "relabel"},
            **{"label": names[labels["suggested"][train]], "note": ""},
        },
    ]
    fresh = visit()
    fresh.page.set_input_files("#import-file", path)
    fresh.page.wait_for_selector("text=3 decisions in all.")
    assert fresh.page.inner_text("#tile-test-4 .mark" if 4 in fresh.shown() else "#decided-count")
    fresh.page.click("#decided summary")
    assert 'Relabel to car: test image 4 (a "note" <b>)' in fresh.page.inner_text("#decided-list")
    other = fixes | {"data": card | {"labels_sha256": {"train": "0", "test": "1"}}}
    for content, words in (
        ("{", "not JSON"),
        ("[]", "not a fixes.json"),
        (json.dumps(other), "about other data"),
    ):
        path.write_text(content, encoding="utf-8")
        fresh.page.set_input_files("#import-file", path)
        fresh.page.wait_for_selector(f"#decided-said:has-text('{words}')")


def test_eighty_suspects_are_relabelled_and_exported_with_six_keys(visit, run, tmp_path):
    labels = pd.read_parquet(run / "audit_train.parquet")
    here = visit("#set=train&sort=label_quality")
    page = here.page
    listed = here.count()
    assert listed >= 20
    page.focus("#grid")
    page.keyboard.press("a")
    assert page.inner_text("#many-count") == f"{listed} selected"
    page.keyboard.press("1")
    made = page.inner_text("#many-count")
    names = json.loads((run / "data.json").read_text(encoding="utf-8"))["fingerprint"]["class_names"]
    number = int(made.split()[0])
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "fixes.json")
    decisions = json.loads((tmp_path / "fixes.json").read_text(encoding="utf-8"))["decisions"]
    assert len(decisions) == number
    assert 0 < number <= listed
    for one in decisions:
        suggested = labels["suggested"][one["index"]]
        assert (one["split"], one["action"]) == ("train", "relabel")
        assert one["label"] == names[suggested]
    page.focus("#grid")
    page.keyboard.press("u")
    assert page.inner_text("#decided-count") == "No decisions yet"


def test_some_are_selected_by_clicks_and_keys_and_get_one_class(visit):
    here = visit("#sort=index")
    page, keys = here.page, here.page.keyboard
    order = here.shown()
    page.click(f"#tile-test-{order[1]}", modifiers=["Control"])
    page.click(f"#tile-test-{order[4]}", modifiers=["Shift"])
    assert page.inner_text("#many-count") == "4 selected"
    keys.press("Shift+ArrowRight")
    keys.press("Escape")
    assert page.inner_text("#many-count") == "Nothing selected"
    keys.press("Home")
    keys.press("x")
    keys.press("x")
    chosen = "[...document.querySelectorAll('.tile[aria-checked=true]')].map(t => +t.dataset.index)"
    assert page.evaluate(chosen) == order[:2]
    page.select_option("#many-label", "2")
    page.click("[data-many=relabel]")
    name = page.locator("#many-label option").nth(3).inner_text()
    for index in order[:2]:
        assert page.inner_text(f"#tile-test-{index} .mark") == f"→ {name}"
    page.focus("#grid")
    keys.press("Home")
    keys.press("3")  # one by one: a decision goes on to the next
    keys.press("2")
    assert page.inner_text(f"#tile-test-{order[0]} .mark") == "Drop"
    assert page.inner_text(f"#tile-test-{order[1]} .mark") == "Keep"


@pytest.mark.parametrize("form", ["csv", "label-studio", "cleanlab"])
def test_decisions_go_to_other_tools_and_come_back(visit, run, tmp_path, form):
    here = visit("#sort=index")
    page = here.page
    first, second = here.shown()[:2]
    card = json.loads((run / "data.json").read_text(encoding="utf-8"))["fingerprint"]
    page.select_option("#many-label", "1")
    page.click(f"#tile-test-{first}", modifiers=["Control"])
    page.click("[data-many=relabel]")
    page.click(f"#tile-test-{second}", modifiers=["Control"])
    page.click("[data-many=keep]")
    page.select_option("#export-as", form)
    with page.expect_download() as download:
        page.click("#export")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    if form == "label-studio":
        tasks = json.loads(path.read_text(encoding="utf-8"))
        assert [task["data"]["index"] for task in tasks] == [first, second]
        result = tasks[0]["annotations"][0]["result"][0]
        assert result["value"]["choices"] == [card["class_names"][1]]
        assert tasks[1]["annotations"][0]["result"][0]["value"]["choices"] == [tasks[1]["data"]["label"]]
    else:
        written = pd.read_csv(path).set_index("index")
        columns = {
            "csv": ["split", "path", "label", "action", "new_label", "note"],
            "cleanlab": ["path", "is_label_issue", "label_quality", "given_label", "predicted_label"],
        }
        assert list(written) == columns[form]
        kind = "new_label" if form == "csv" else "predicted_label"
        assert written[kind][first] == card["class_names"][1]
        assert form == "csv" or (written["is_label_issue"][first] and not written["is_label_issue"][second])
    fresh = visit()
    fresh.page.set_input_files("#import-file", path)
    fresh.page.wait_for_selector("#decided-said:has-text('in all.')")
    fresh.page.click("#decided summary")
    told = fresh.page.inner_text("#decided-list")
    assert f"Relabel to {card['class_names'][1]}: test image {first}" in told
    assert form == "cleanlab" or f"Keep: test image {second}" in told


def test_a_table_of_other_labels_is_refused(visit, tmp_path):
    here = visit("#sort=index")
    path = tmp_path / "fixes.csv"
    path.write_text("split,index,label,action\ntest,0,no such class,drop\n", encoding="utf-8")
    here.page.set_input_files("#import-file", path)
    here.page.wait_for_selector("#decided-said:has-text('about other data')")
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    here.page.set_input_files("#import-file", path)
    here.page.wait_for_selector("#decided-said:has-text('not JSON')")


def test_what_is_drawn_around_on_the_map_is_what_the_gallery_shows(visit, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "mapped")
    table = pd.read_parquet(folder / "audit_test.parquet")
    rng = np.random.default_rng(0)
    table["map_x"], table["map_y"] = rng.random(len(table)), rng.random(len(table))
    table.to_parquet(folder / "audit_test.parquet", index=False)
    here = visit(address=write_report(folder).as_uri())
    page = here.page
    page.click("#map-lasso")
    page.eval_on_selector("#map-canvas", "canvas => canvas.scrollIntoView({ behavior: 'instant' })")
    box = page.locator("#map-canvas").bounding_box()
    side = min(box["width"], box["height"]) - 2 - 16  # without the border
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def at(x, y):
        return middle[0] + (x - 0.5) * side, middle[1] + (0.5 - y) * side

    corners = [(0.2, 0.3), (0.6, 0.3), (0.6, 0.8), (0.2, 0.8)]
    page.mouse.move(*at(*corners[0]))
    page.mouse.down()
    for corner in (*corners[1:], corners[0]):
        page.mouse.move(*at(*corner))
    page.mouse.up()
    clear = 2 / side  # of the line: a pixel is no place to quarrel about
    x, y = table["map_x"], table["map_y"]
    surely = x.between(0.2 + clear, 0.6 - clear) & y.between(0.3 + clear, 0.8 - clear)
    perhaps = x.between(0.2 - clear, 0.6 + clear) & y.between(0.3 - clear, 0.8 + clear)
    page.wait_for_selector("#drawn")
    assert surely.sum() <= here.count() <= perhaps.sum()
    page.select_option("#f-is", "wrong")
    assert here.count() <= int((table["label"] != table["predicted"])[perhaps].sum())
    page.select_option("#f-is", "")
    page.click("#drawn")
    assert here.count() == len(table)
    point = table.index[surely][0]
    page.eval_on_selector("#map-canvas", "canvas => canvas.scrollIntoView({ behavior: 'instant' })")
    box = page.locator("#map-canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(*at(x[point], y[point]))
    page.wait_for_selector(f"#viewer[open] >> text=Test image {point}")
    assert here.outside() == []
    assert here.said == []


def test_the_path_of_a_picture_is_copied_with_a_button(visit, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "named")
    for name in ("audit_test.parquet", "audit_train.parquet"):
        table = pd.read_parquet(folder / name)
        table["path"], table["hash"] = [f"pictures/{k}.jpg" for k in table["index"]], "0" * 16
        table.to_parquet(folder / name, index=False)
    here = visit("#img=7", address=write_report(folder).as_uri())
    here.context.grant_permissions(["clipboard-read", "clipboard-write"])
    here.page.click("#d-facts .copy")
    here.page.wait_for_selector("#d-facts .copy:has-text('Copied')")
    assert here.page.evaluate("() => navigator.clipboard.readText()") == "pictures/7.jpg"


def test_the_thresholds_count_as_a_loop_does(visit, table, run):
    here = visit("#selective")
    here.page.evaluate(
        "o => { o.value = 700; o.dispatchEvent(new Event('input')); }", here.page.query_selector("#t-answer")
    )
    here.page.evaluate(
        "o => { o.value = 100; o.dispatchEvent(new Event('input')); }", here.page.query_selector("#t-set")
    )
    sure = table["confidence"] >= 0.7
    wrong = (table["label"] != table["predicted"])[sure]
    assert here.page.inner_text("#t-coverage") == f"{100 * sure.mean():.1f}\u00a0% ({sure.sum()})"
    assert here.page.inner_text("#t-risk") == f"{100 * wrong.mean():.2f}\u00a0% ({wrong.sum()})"
    shares = read_predictions(run / "predictions.parquet").probabilities
    covered = np.mean([p[y] >= 0.1 for p, y in zip(shares, table["label"], strict=True)])
    assert here.page.inner_text("#t-covered") == f"{100 * covered:.1f}\u00a0%"
    assert float(here.page.inner_text("#t-size")) == pytest.approx(
        (shares >= 0.1).sum(axis=1).mean(), abs=0.006
    )
    here.page.click("#t-rejected")
    here.text("#count", f"{(~sure).sum()} of")


def test_before_it_is_printed_the_page_draws_every_picture(visit):
    here = visit()
    here.page.pdf()
    drawn, all_of_them = here.page.evaluate(
        """() => ['main a.thumb[style], main a.thumb.absent', 'main a.thumb']
          .map(which => document.querySelectorAll(which).length)"""
    )
    assert drawn == all_of_them > 20


def test_a_fix_leads_to_its_images(visit, run):
    fixes = json.loads((run / "audit.json").read_text(encoding="utf-8"))["fixes"]
    here = visit()
    for place, fix in enumerate(fixes):
        here.page.click(f"#fix-{place + 1} a >> text=in the gallery")
        here.text("#chip", f"Fix {place + 1}:")
        assert sorted(here.shown()) == sorted(fix["images"])
    here.page.click("#chip")
    assert not here.page.is_visible("#chip")


def test_without_a_fingerprint_of_the_labels_nothing_is_decided(visit, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "old")
    card = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    del card["fingerprint"]
    (folder / "data.json").write_text(json.dumps(card), encoding="utf-8")
    path = folder / "report.html"
    path.write_text(render_page(read_run(folder)), encoding="utf-8")
    here = visit(address=path.as_uri())
    here.page.focus("#grid")
    here.page.keyboard.press("3")
    assert here.page.locator(".tile .mark").count() == 0
    assert "kept no fingerprint" in here.page.inner_text("#decisions")
    here.page.click(".tile")
    assert not here.page.is_visible("#d-decide")


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_the_page_is_as_wide_as_its_window(visit, width, scheme):
    here = visit(width=width, scheme=scheme)
    here.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert here.page.evaluate("document.documentElement.scrollWidth") == width
    here.page.click(".tile")
    assert here.page.evaluate("document.querySelector('#viewer').scrollWidth") <= width
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert here.page.evaluate(broken) == 0


def test_the_theme_follows_the_reader_and_then_the_button(visit):
    here = visit(scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = here.page.evaluate(ground)
    here.page.click("#theme")
    light = here.page.evaluate(ground)
    assert sum(map(int, light[4:-1].split(","))) > 700 > 100 > sum(map(int, dark[4:-1].split(",")))
    here.page.reload()
    here.page.wait_for_selector("html[data-ready]")
    assert here.page.evaluate(ground) == light
    assert here.page.inner_text("#theme") == "Theme: light"


def test_a_point_of_a_diagram_says_its_values(visit):
    here = visit("#calibration")
    here.page.focus("#calibration svg.plot")
    here.page.keyboard.press("ArrowRight")
    assert here.page.inner_text("#calibration .readout").startswith("confidence ")
    texts = here.page.locator("#robustness circle title").all_text_contents()
    assert len(texts) == 27
    assert all("wrong" in text for text in texts)


def test_the_first_tab_stop_skips_to_the_summary(visit):
    page = visit().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#summary"


def test_text_stands_out_in_light_and_dark(visit):
    for scheme in ("light", "dark"):
        page = visit(scheme=scheme).page
        for selector in ("h1", ".lead", ".findings a", "nav a", "figcaption", ".terms summary"):
            colors = page.evaluate(
                "s => [document.body, document.querySelector(s)].map((e, i) =>"
                " getComputedStyle(e)[i ? 'color' : 'backgroundColor'].match(/[0-9]+/g).map(Number))",
                selector,
            )
            assert _contrast(*colors) >= 4.5, (scheme, selector)


def _contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of two sRGB colours, WCAG 2.2."""

    def luminance(color: list[int]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_section_is_folded_until_a_link_leads_to_it_or_the_page_is_printed(visit):
    page = visit().page
    folded = page.locator("main > section > details.fold:not([open])").count()
    assert folded > 8
    assert page.is_visible("#calibration .lead")
    assert not page.is_visible("#calibration figure >> nth=0")
    page.click("nav a[href='#calibration']")
    assert page.is_visible("#calibration figure >> nth=0")
    page.wait_for_selector("nav a[href='#calibration'][aria-current]")
    assert page.locator("nav a[aria-current]").count() == 1
    page.click("#calibration .fold > summary")
    page.click("nav a[href='#calibration']")  # the address is the same, and the click counts
    assert page.is_visible("#calibration figure >> nth=0")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.fold:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.fold:not([open])").count() == folded - 1


def test_the_summary_of_the_page_fits_one_window(visit):
    page = visit().page
    page.set_viewport_size({"width": 1280, "height": 800})
    bottom = page.evaluate(
        "document.querySelector('#summary ol.fixes').getBoundingClientRect().bottom + scrollY"
    )
    assert bottom <= 800
    page.set_viewport_size({"width": 390, "height": 844})
    bottom = page.evaluate(
        "document.querySelector('#summary ol.fixes').getBoundingClientRect().bottom + scrollY"
    )
    assert bottom <= 2 * 844


def test_the_terms_of_a_title_open_over_the_page_and_one_at_a_time(visit):
    page = visit().page
    height = page.evaluate("document.documentElement.scrollHeight")
    page.click("#calibration .terms summary")
    assert "Calibration error" in page.inner_text("#calibration .terms dl")
    assert page.evaluate("document.documentElement.scrollHeight") == height
    page.click("#fixes .terms summary")
    assert page.locator(".terms[open]").count() == 1


def test_a_page_without_pictures_filters_opens_and_decides_all_the_same(visit, tmp_path):
    folder = write_run(tmp_path / "bare", predictions=predictions_of(n=300))
    here = visit(address=write_report(folder).as_uri())
    predictions = predictions_of(n=300)
    here.page.select_option("#f-is", "wrong")
    assert here.count() == int((~predictions.correct).sum())
    worst = int(np.argmax(np.where(predictions.correct, -1, predictions.loss)))
    assert here.shown()[0] == worst
    here.page.click(".tile")
    assert here.page.inner_text("#d-title") == f"Test image {worst}"
    assert not here.page.is_visible("#d-maps")
    here.page.keyboard.press("Escape")
    here.page.click("#tab-train")
    assert here.count() == 0


def test_a_mistake_with_its_maps_leads_to_the_open_image(visit, run):
    here = visit()
    link = here.page.locator("#mistakes-with-maps .title a").first
    index = link.get_attribute("href").removeprefix("#img=")
    link.click()
    here.page.wait_for_selector(f"#viewer[open] >> text=Test image {index}")


def test_hostile_names_stay_text(visit, tmp_path):
    folder = write_run(tmp_path / "<b>run", predictions=predictions_of(HOSTILE, n=60))
    (folder / "data.json").write_text(
        (folder / "data.json").read_text(encoding="utf-8").replace('"shapes"', '"</script><b>"'),
        encoding="utf-8",
    )
    found = json.loads((add_audit(folder) / "audit.json").read_text(encoding="utf-8"))
    words = "</script><script>document.title = 'broken'</script>"
    found["fixes"][0]["title"] = found["slices"][0]["name"] = words
    (folder / "audit.json").write_text(json.dumps(found), encoding="utf-8")
    here = visit(address=write_report(folder).as_uri())
    page = here.page
    assert page.title() == "<b>run · Sightline"
    assert page.locator("script").count() == 1 + page.locator("script[type]").count()
    assert page.locator("main b, main img[src=x]").count() == 0
    assert page.locator("#f-true option").nth(4).inner_text() == HOSTILE[3]
    page.select_option("#f-true", "2")
    page.click(".tile")
    assert "שלום" in page.inner_text("#d-answer")
    page.keyboard.press("1")
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_a_comparison_shows_what_changed_with_both_answers(visit, run, tmp_path):
    labels = read_predictions(run / "predictions.parquet").labels
    other = write_run(tmp_path / "other", predictions=predictions_of(n=300, seed=3))
    add_audit(other)
    a, b = (read_predictions(folder / "predictions.parquet") for folder in (run, other))
    found = compare_predictions(a, b)
    here = visit("#group=broken", address=write_comparison(run, other, found, tmp_path / "c.html").as_uri())
    page = here.page
    listed = "[...document.querySelectorAll('.changes li')].map(l => +l.dataset.index)"
    assert page.evaluate(listed) == found.broken[:24].tolist()
    page.click("role=tab[name^='Fixed']")
    assert page.evaluate(listed) == found.fixed[:24].tolist()
    first = page.locator(".changes li").first
    index = found.fixed[0]
    assert [text.split("\n")[0] for text in first.locator("strong").all_inner_texts()] == [
        a.class_names[c] for c in (labels[index], a.predicted[index], b.predicted[index])
    ]
    page.select_option("#f-true", "1")
    assert page.evaluate(listed) == [i for i in found.fixed if labels[i] == 1][:24]
    assert "do not tell which run is better" in page.inner_text("#summary")


def test_ten_thousand_images_take_eight_megabytes_and_open_at_once(visit, tmp_path, capsys):
    number = 10_000
    folder = write_run(tmp_path / "large", predictions=predictions_of(tuple("abcdefghij"), n=number))
    photos = np.resize(photo_like(1_000, 32), (number, 32, 32, 3))
    add_audit(folder, images=photos, train_images=photos[:2_000], train_labels=np.arange(2_000) % 10, grid=8)
    path = folder / "report.html"
    path.write_text(render_page(read_run(folder)), encoding="utf-8")
    size = path.stat().st_size / 1e6
    here = visit(address=path.as_uri())
    paint = here.page.evaluate(
        "performance.getEntriesByType('paint').find(e => e.name === 'first-contentful-paint').startTime"
    )
    with capsys.disabled():
        print(f"\n  10,000 images: {size:.2f} MB, first paint after {paint:.0f} ms")
    assert size < 8
    assert here.count() == number
    assert len(here.shown()) < 100
