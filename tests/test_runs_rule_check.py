"""`sightline check`: what it reads of a folder, what it writes, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

import numpy as np
import pandas as pd
import pytest
from report_audit_fixture import add_audit
from report_fixture import NAMES, predictions_of, write_run

import sightline as sl
from sightline.cli import main
from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.predictions import Predictions, read_predictions, write_predictions
from sightline.runs.folders import shared_images

RULES = ["accuracy >= 0.8", "leaks == 0", "label_issues <= 15", "accuracy not worse than BASE by 0.05"]


def with_files(predictions: Predictions, hashes) -> Predictions:
    hashes = [str(one) for one in hashes]
    files = pd.DataFrame({"path": [f"{one}.png" for one in hashes], "hash": hashes})
    return dataclasses.replace(predictions, files=files)


def found_leaks(folder) -> set[int]:
    pairs = json.loads((folder / "audit.json").read_text())["duplicates"]["pairs"]
    return {one["b"] for one in pairs if (one["a_split"], one["b_split"]) == ("train", "test")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base and a better run: without the first 50 images of the base, and with 50 of its own."""
    made = tmp_path_factory.mktemp("runs")
    old = predictions_of(n=600)
    base = add_audit(write_run(made / "base", predictions=with_files(old, range(600))))
    rows = np.r_[50:600, 0:50]
    logits = old.logits[rows] + 0.5 * np.eye(4, dtype=np.float32)[old.labels[rows]]
    new = with_files(Predictions(logits, old.labels[rows], NAMES), [*range(50, 600), *range(1000, 1050)])
    return base, add_audit(write_run(made / "new", predictions=new))


def test_a_run_is_held_to_rules_from_its_folder_alone(folders, tmp_path):
    base, new = folders
    found = sl.check(new, RULES, against=base)
    predictions = read_predictions(new / "predictions.parquet")
    accuracy, leaks, labels, change = found.rules
    assert (accuracy.value, str(accuracy.verdict)) == (predictions.correct.mean(), "passed")
    assert (leaks.value, str(leaks.verdict)) == (len(found_leaks(new)), "failed")
    assert (labels.needed, str(labels.verdict)) == (None, "undecided")
    assert labels.note.endswith("look at the flagged labels")
    shared = read_predictions(base / "predictions.parquet").correct[50:]
    assert change.value == pytest.approx(predictions.correct[:550].mean() - shared.mean())
    assert (change.images, change.note) == (550, "paired on 550 shared images")
    assert (str(found.verdict), found.exit_code, found.base) == ("failed", 3, str(base))


def test_the_command_prints_a_table_and_ends_with_its_number(folders, tmp_path, capsys):
    base, new = map(str, folders)
    rules = tmp_path / "check.toml"

    def ends(*lines: str, more=()) -> int:
        rules.write_text(f"rules = {json.dumps(lines)}")
        return main(["check", new, "--rules", str(rules), *more])

    assert ends("accuracy >= 0.8") == 0
    assert capsys.readouterr().out.endswith("passed: 1 passed of 1 rule\n")
    assert ends("accuracy >= 0.8", "leaks == 0", "label_issues <= 15") == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "accuracy >= 0.8 passed" in out
    assert "failed: 1 passed, 1 failed, 1 undecided of 3 rules" in out
    assert ends("accuracy >= 0.8", "label_issues <= 15") == 4
    capsys.readouterr()
    assert ends("accuracy better than BASE", more=["--against", base, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verdict"], shown["rules"][0]["verdict"]) == ("passed", "passed")
    assert ends("accuracy > 0.8") == 1
    assert "sightline: rule 'accuracy > 0.8' is no rule; write METRIC >= NUMBER" in capsys.readouterr().err
    assert main(["check", new, "--rule", "x"]) == 2


def test_without_rules_a_default_list_stands_in_and_is_named(folders, capsys):
    base, new = folders
    found = sl.check(new, against=base)
    assert found.default
    assert [one.rule for one in found.rules] == [
        *("accuracy >= 0.2500", "leaks == 0", "label_issues <= 10", "calibration_error <= 0.05"),
        *("worst_class >= 0.5", "worst_slice >= 0.5", "accuracy not worse than BASE by 0.01"),
    ]
    assert main(["check", str(new)]) == 3
    assert "no rules were given, so these are the default ones" in capsys.readouterr().out


def test_a_run_without_an_audit_is_undecided_and_says_what_to_do(tmp_path):
    bare = write_run(tmp_path / "bare")
    found = sl.check(bare, ["leaks == 0", "accuracy >= 0.5"])
    assert [str(one.verdict) for one in found.rules] == ["undecided", "passed"]
    assert found.rules[0].note == "near-duplicates were not looked for; sightline audit RUN"


def test_hostile_names_change_neither_the_table_nor_the_xml(tmp_path):
    names = ("a|b", "<img src=x onerror=alert(1)>", "c\x07\x00]]>", "d`[x](http://e)\n# h")
    made = write_run(tmp_path / "run", predictions=predictions_of(names))
    rules = [f"recall[{name}] >= 0.99" for name in names[:2]] + ["worst_class >= 0.99", "accuracy >= 0.5"]
    sl.check(made, rules, junit=tmp_path / "c.xml", markdown=tmp_path / "c.md")
    root = xml.parse(tmp_path / "c.xml").getroot()
    suite = root[0]
    assert [suite.get(key) for key in ("tests", "failures", "skipped", "errors")] == ["4", "3", "0", "0"]
    assert [case.get("name") for case in suite] == rules
    assert [[part.tag for part in case] for case in suite] == [["failure"]] * 3 + [["system-out"]]
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(rules)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert not re.search(r"(?<!\\)[<`\[]", text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("rules = [", "cannot be read as TOML"),
        ('rule = ["accuracy >= 0.9"]', "has the key 'rule'; did you mean 'rules'?"),
        ("", "has no list of rules; write: rules ="),
        ('rules = "accuracy >= 0.9"', "has no list of rules"),
        ("rules = [1]", "rules are a list of lines of text"),
        ("rules = []", "there are no rules"),
        ("rules = ['accuracy >= 0.9']\nrules = []", "cannot be read as TOML"),
        ("\0\x01\x02", "cannot be read as TOML"),
    ],
)
def test_a_file_of_rules_that_does_not_fit_is_refused_in_one_line(folders, tmp_path, content, said):
    path = tmp_path / "check.toml"
    path.write_text(content)
    with pytest.raises((InputError, DamagedFileError), match=re.escape(said)) as caught:
        sl.check(folders[1], path, junit=tmp_path / "c.xml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c.xml").exists()


def test_what_is_missing_or_does_not_belong_together_is_refused(folders, tmp_path):
    base, new = folders
    with pytest.raises(NotFoundError, match=r"is missing; it has to hold.*one rule goes into a list"):
        sl.check(new, "accuracy >= 0.9")
    with pytest.raises(InputError, match="needs a run to compare with; name it with --against BASE"):
        sl.check(new, ["accuracy better than BASE"])
    with pytest.raises(InputError, match="no rule speaks of BASE"):
        sl.check(new, ["accuracy >= 0.9"], against=base)
    other = write_run(tmp_path / "other", predictions=predictions_of(("x", "y")))
    with pytest.raises(InputError, match="other classes; a run is held to one with the same classes"):
        sl.check(new, ["accuracy better than BASE"], against=other)
    (other / "metrics.json").write_text('{"images": 200, "scores": {"overall": 3}}')
    with pytest.raises(DamagedFileError, match=r"metrics\.json is damaged \(scores\.overall"):
        sl.check(other, ["accuracy >= 0.5"])


def test_a_check_imports_no_torch(folders):
    arguments = ["check", str(folders[1]), "--against", str(folders[0])]
    code = (
        f"import sys; from sightline.cli import main; main({arguments!r}); "
        "print(sorted({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_runs_without_hashes_share_their_places_if_they_are_of_one_split(tmp_path):
    a = predictions_of(n=40)
    moved = dataclasses.replace(a, labels=np.roll(a.labels, 1))
    folders = [write_run(tmp_path / name, predictions=one) for name, one in (("a", a), ("b", moved))]
    rows = shared_images(folders[0], a, folders[0], a)
    np.testing.assert_array_equal(rows, [np.arange(40)] * 2)
    assert [len(one) for one in shared_images(folders[0], a, folders[1], moved)] == [0, 0]
    write_predictions(folders[1] / "predictions.parquet", a)
    found = sl.check(folders[1], ["accuracy not worse than BASE by 0.01"], against=folders[0])
    assert (found.rules[0].value, found.rules[0].images) == (0.0, 40)
