"""Tables of predictions and features from elsewhere: matched by name, told apart, refused with both sides."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.predictions import Predictions, write_predictions
from sightline.predictions.given import ImageNames, match_rows, read_features, read_scores, tell_scores

NAMES = ("cat", "dog", "owl")
IMAGES = ImageNames(test=["b.jpg", "c.jpg"], train=["a.jpg"], order=["c.jpg", "a.jpg", "b.jpg"])
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])  # of a, b, c


def table(**more) -> pd.DataFrame:
    return pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], **dict(zip(NAMES, P.T, strict=True)), **more})


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_and_columns_are_matched_by_name(tmp_path, kind):
    shuffled = table(loss=1.0).iloc[[2, 0, 1]][["owl", "path", "loss", "dog", "cat"]]
    path = tmp_path / f"p.{kind}"
    shuffled.to_csv(path, index=False) if kind == "csv" else shuffled.to_parquet(path)
    found = read_scores(path, images=IMAGES, class_names=NAMES)
    np.testing.assert_allclose(softmax(found.test), P[1:])
    np.testing.assert_allclose(softmax(found.train), P[:1])
    assert found.what == "probabilities"


def test_rows_without_a_name_are_in_the_order_of_the_data(tmp_path):
    in_order = P[[2, 0, 1]]
    found = read_scores(in_order, images=IMAGES, class_names=NAMES)
    np.testing.assert_allclose(softmax(found.test), P[1:])
    alone = read_scores(P[1:], images=IMAGES, class_names=NAMES)
    np.testing.assert_allclose(softmax(alone.test), P[1:])
    assert alone.train is None
    numbered = table().drop(columns="path").assign(index=[1, 2, 0])
    numbered.to_csv(tmp_path / "p.csv", index=False)
    np.testing.assert_allclose(
        softmax(read_scores(tmp_path / "p.csv", images=IMAGES, class_names=NAMES).test), P[1:]
    )
    with pytest.raises(
        InputError, match=r"has 1 rows and names no image; the data has 3 or 2, its test images"
    ):
        read_scores(P[:1], images=IMAGES, class_names=NAMES)


def test_a_table_of_our_own_is_read(tmp_path):
    files = pd.DataFrame({"path": ["b.jpg", "c.jpg"], "hash": ["", ""]})
    write_predictions(tmp_path / "p.parquet", Predictions(np.log(P[1:]), np.array([0, 1]), NAMES, files))
    found = read_scores(tmp_path / "p.parquet", images=IMAGES, class_names=("owl", "dog", "cat"))
    np.testing.assert_allclose(softmax(found.test), P[1:, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("path,cat,dog", "the columns cat, dog and the labels the classes cat, dog, owl (missing: owl)"),
        ("path,cat,dog,dog", "(missing: owl; twice: dog)"),
        ("path,cat,dog,owl,emu", "(no class: emu); classes without an image are named with --classes"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_both_lists(tmp_path, header, words):
    rows = [",".join([name, *["0.5"] * header.count(",")]) for name in ("a.jpg", "b.jpg", "c.jpg")]
    (tmp_path / "p.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(InputError) as caught:
        read_scores(tmp_path / "p.csv", images=IMAGES, class_names=NAMES)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"has 1 images twice \(the first: a\.jpg\)"):
        match_rows(2, ["a.jpg", "./a.jpg"], IMAGES, "p")
    with pytest.raises(
        InputError, match=r"no row for 1 of 2 images \(the first: c\.jpg; the first row is of: b"
    ):
        match_rows(1, ["b.jpg"], IMAGES, "p")


def test_scores_are_told_apart():
    logits = np.array([[2.0, -1.0], [0.5, 0.5]])
    for values, what in ((softmax(logits), "probabilities"), (100 * softmax(logits), "percentages")):
        found, name = tell_scores(values)
        assert name == what
        np.testing.assert_allclose(softmax(found), softmax(logits))
    assert tell_scores(logits) == (pytest.approx(logits), "logits")
    assert tell_scores(np.round(softmax(logits), 3))[1] == "probabilities"
    with pytest.raises(InputError, match=r"whose rows do not sum to 1 \(row 0: 1\.4\)"):
        tell_scores(np.array([[0.9, 0.5]]))
    with pytest.raises(InputError, match="row 1 that is not finite or missing"):
        tell_scores(np.array([[0.9, 0.1], [np.nan, 1.0]]))


def test_features_of_all_kinds_of_files(tmp_path):
    features = np.arange(12.0).reshape(3, 4)  # of a, b, c
    np.save(tmp_path / "order.npy", features[[2, 0, 1]])
    np.savez(tmp_path / "named.npz", features=features, path=np.array(["a.jpg", "b.jpg", "c.jpg"]))
    np.savez(tmp_path / "pair.npz", test=features[1:], train=features[:1])
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "features": list(features)})
    frame.to_parquet(tmp_path / "lists.parquet")
    wide = pd.DataFrame(features, columns=list("wxyz")).assign(path=["a.jpg", "b.jpg", "c.jpg"])
    wide.to_parquet(tmp_path / "wide.parquet")
    for name in ("order.npy", "named.npz", "pair.npz", "lists.parquet", "wide.parquet"):
        found = read_features(tmp_path / name, images=IMAGES)
        np.testing.assert_array_equal(found.test, features[1:], err_msg=name)
        np.testing.assert_array_equal(found.train, features[:1], err_msg=name)
    assert read_features(features[1:], images=IMAGES).train is None


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(NotFoundError, match=r"p\.parquet is missing"):
        read_scores(tmp_path / "p.parquet", images=IMAGES, class_names=NAMES)
    (tmp_path / "f.npy").write_bytes(b"no array")
    with pytest.raises(DamagedFileError, match="cannot be read as arrays"):
        read_features(tmp_path / "f.npy", images=IMAGES)
    (tmp_path / "p.parquet").write_text(json.dumps({}))
    with pytest.raises(DamagedFileError, match="cannot be read as a table"):
        read_scores(tmp_path / "p.parquet", images=IMAGES, class_names=NAMES)
    (tmp_path / "text.csv").write_text("path,cat,dog,owl\na.jpg,x,y,z\n")
    with pytest.raises(InputError, match="has text in the column 'cat'"):
        read_scores(tmp_path / "text.csv", images=IMAGES, class_names=NAMES)
