"""Near-duplicates: the search against loops, the planted leaks, chance, groups, accuracy without."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from sightline.audit import find_near_duplicates
from sightline.audit.duplicates.candidates import (
    Pictures,
    best_shift,
    chance_threshold,
    coarse,
    shifted_pairs,
)
from sightline.audit.duplicates.fingerprints import area_weights, correlation, fingerprints, pool
from sightline.audit.duplicates.pairs import accuracy_without
from sightline.data import ImageFiles, Split, load_data
from sightline.errors import InputError
from sightline.stats import wilson_interval


@pytest.fixture(scope="module")
def shapes():
    return load_data("shapes")


@pytest.fixture(scope="module")
def found(shapes):
    return find_near_duplicates(shapes.train, shapes.test)


def split(images: np.ndarray, label: int = 0) -> Split:
    return Split(images, np.full(len(images), label))


def clouds(count: int, seed: int, size: int = 24) -> np.ndarray:
    """Unrelated pictures with the grain of photographs: noise whose amplitude falls off with frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]) + 1 / size
    spectrum = np.fft.fft2(rng.normal(size=(count, size, size, 3)), axes=(1, 2)) / frequency[..., None]
    field = np.fft.ifft2(spectrum, axes=(1, 2)).real
    field /= field.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(128 + 45 * field, 0, 255).astype(np.uint8)


def test_pooling_is_the_mean_of_each_cell_and_shares_a_pixel_out_by_area():
    images = np.random.default_rng(3).integers(0, 256, (5, 12, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(pool(images, 4), images.reshape(5, 4, 3, 4, 2, 3).mean((2, 4)), rtol=1e-6)
    weights = area_weights(7, 3)
    expected = np.zeros((3, 7))
    for cell in range(3):
        for pixel in range(7):
            for part in range(300):  # a pixel in 300 slices, each in the cell that its middle lies in
                expected[cell, pixel] += int((pixel + (part + 0.5) / 300) * 3 / 7) == cell
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), atol=2e-3)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_fingerprints_do_not_depend_on_brightness_contrast_or_colour_cast():
    images = clouds(300, 0)
    cast = np.clip(0.7 * images.astype(float) + (30, 10, 20), 0, 255)
    prints = fingerprints([images, cast.astype(np.uint8)])[0]
    own = np.einsum("pd,pd->p", prints[:300], prints[300:])
    assert own.min() > 0.98
    others = prints[:300] @ prints[300:].T
    assert others[~np.eye(300, dtype=bool)].max() < 0.75


def test_fingerprints_of_mirrored_pictures_are_the_mirrored_fingerprints():
    images = clouds(200, 1)
    upright, mirrored, upside_down = fingerprints([images, images[:, :, ::-1], images[:, ::-1]])
    np.testing.assert_allclose(upright[:200], mirrored[200:400], atol=2e-4)
    np.testing.assert_allclose(upright[200:400], mirrored[:200], atol=2e-4)
    np.testing.assert_allclose(upright[400:], upside_down[:200], atol=2e-4)


def test_a_picture_of_one_colour_is_like_nothing():
    images = np.concatenate([clouds(99, 2), np.full((1, 24, 24, 3), 77, np.uint8)])
    assert not fingerprints([images])[0][99].any()
    assert correlation(images[99:], images[:1]).tolist() == [0.0]


def test_the_correlation_is_that_of_the_inner_pixels():
    one, other = clouds(2, 3, size=16)[:, None]
    centred = [part[0, 2:-2, 2:-2] - part[0, 2:-2, 2:-2].mean((0, 1)) for part in (one, other)]
    expected = np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1]
    np.testing.assert_allclose(correlation(one, other), expected, rtol=1e-5)


def test_the_threshold_extrapolates_the_tail_of_the_decoys():
    rng = np.random.default_rng(4)
    heights = rng.exponential(0.1, 2000)  # artanh of a similarity, with the tail that is assumed
    copies = np.full(30, 0.97)
    threshold, chance = chance_threshold(np.concatenate([copies, np.tanh(heights[:500])]), np.tanh(heights))
    assert threshold == 0.97
    assert chance == pytest.approx(2000 * np.exp(-np.arctanh(0.97) / 0.1), rel=1)
    # At this likeness 2,000 pairs would be there by chance every second time: one such pair proves nothing.
    lone = np.tanh(0.1 * np.log(4000))
    assert chance_threshold(np.array([lone]), np.tanh(heights))[0] == np.inf
    assert chance_threshold(np.array([]), np.tanh(heights))[0] == np.inf


def test_chance_alone_is_seldom_accepted():
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(400):
        found, decoys = np.tanh(rng.exponential(0.1, (2, 2000)))
        alarms += np.isfinite(chance_threshold(found, decoys, share=0.05)[0])
    assert alarms / 400 < 0.1  # 0.05, and what the fit of the tail adds


def test_every_planted_leak_is_found_and_nothing_else(shapes, found):
    test, train = shapes.truth.leaks.T
    np.testing.assert_array_equal(np.flatnonzero(found.leaked), test)
    np.testing.assert_array_equal(found.test_nearest[test], train)
    np.testing.assert_array_equal(found.train_nearest[train], test)
    kinds = found.pairs.set_index("b")["kind"][test]
    planted = shapes.truth.leak_kinds
    expected = np.where(np.isin(planted, ("exact", "mirrored")), planted, "altered")
    np.testing.assert_array_equal(kinds, expected)
    assert found.groups == len(test) == len(found.pairs)
    assert found.expected_by_chance < 0.01


def test_pairs_say_whether_their_labels_agree(shapes, found):
    pairs = found.pairs
    same = shapes.train.labels[pairs["a"]] == shapes.test.labels[pairs["b"]]
    np.testing.assert_array_equal(pairs["same_label"], same)
    assert (pairs["a_split"] == "train").all()
    assert (pairs["b_split"] == "test").all()
    assert pairs["similarity"].is_monotonic_decreasing
    assert pairs["similarity"].between(0, 1).all()


def test_nothing_is_found_where_nothing_is_alike():
    for seed in range(12):
        found = find_near_duplicates(split(clouds(250, 2 * seed)), split(clouds(150, 2 * seed + 1)))
        assert len(found.pairs) == 0
        assert found.groups == 0
        assert (found.test_nearest == -1).all()


def test_pictures_of_one_kind_are_no_copies(shapes):
    kept = np.setdiff1d(np.arange(1000), shapes.truth.leaks[:, 0])
    found = find_near_duplicates(shapes.train, shapes.test.take(kept))
    assert len(found.pairs) == 0


def test_exact_copies_form_one_group_and_their_first_stands_for_them():
    train, test = clouds(300, 6), clouds(300, 7)
    train[[10, 200]] = train[5]
    test[[3, 8]] = train[5]
    test[4] = np.clip(train[5] * 0.8 + 10, 0, 255).astype(np.uint8)
    test[20] = test[9][:, ::-1]
    found = find_near_duplicates(split(train), split(test, label=1))
    rows = found.pairs[["a_split", "a", "b_split", "b", "kind"]].values.tolist()
    assert sorted(rows) == [
        ["test", 9, "test", 20, "mirrored"],
        ["train", 5, "test", 3, "exact"],
        ["train", 5, "test", 4, "altered"],
        ["train", 5, "test", 8, "exact"],
        ["train", 5, "train", 10, "exact"],
        ["train", 5, "train", 200, "exact"],
    ]
    assert np.flatnonzero(found.train_groups == 0).tolist() == [5, 10, 200]
    assert np.flatnonzero(found.test_groups == 0).tolist() == [3, 4, 8]
    assert np.flatnonzero(found.test_groups == 1).tolist() == [9, 20]
    assert found.groups == 2
    assert {i: found.test_nearest[i] for i in np.flatnonzero(found.leaked)} == {3: 5, 4: 5, 8: 5}
    assert {i: found.train_nearest[i] for i in (5, 10, 200)} == {5: 3, 10: 3, 200: 3}
    assert (found.train_nearest >= 0).sum() == 3
    same = found.pairs["a_split"] == found.pairs["b_split"]
    assert found.pairs["same_label"].tolist() == same.tolist()


def test_blank_pictures_are_exact_copies_of_each_other_only():
    train, test = clouds(200, 8), clouds(200, 9)
    train[7] = test[11] = 90
    test[12] = 91
    found = find_near_duplicates(split(train), split(test))
    assert found.pairs[["a", "b", "kind"]].values.tolist() == [[7, 11, "exact"]]


def test_splits_of_two_sizes_are_refused():
    with pytest.raises(InputError, match=r"\(24, 24\) and test images \(16, 16\) pixels; .* image_size"):
        find_near_duplicates(split(clouds(10, 0)), split(clouds(10, 0, size=16)))


def test_pictures_that_stay_in_their_files_have_the_same_duplicates(tmp_path):
    images = clouds(60, 30)
    images[50], images[51] = images[0], images[1][:, ::-1]
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for place in range(label == "bee", 60, 2):
            Image.fromarray(images[place]).save(tmp_path / label / f"{place:02}.png")
    found = []
    for stream in (False, True):
        data = load_data(tmp_path, image_size=24, stream=stream)
        rng = np.random.default_rng(0)
        features = (rng.normal(size=(len(data.train), 4)), rng.normal(size=(len(data.test), 4)))
        found.append(find_near_duplicates(data.train, data.test, features=features).pairs)
    assert isinstance(data.train.images, ImageFiles)
    assert len(found[0]) == 2
    assert found[0].equals(found[1])


def test_a_handful_of_pictures_is_no_error():
    images = clouds(4, 0)
    found = find_near_duplicates(split(images[:3]), split(images[[3, 0]]))
    assert found.test_nearest.tolist() == [-1, 0]


def test_accuracy_without_counts_what_is_left():
    left_out = np.array([True] * 40 + [False] * 60)
    correct = np.array([True] * 38 + [False] * 2 + [True] * 45 + [False] * 15)
    found = accuracy_without(left_out, correct)
    assert (found.value, found.n, found.interval) == (0.75, 60, wilson_interval(45, 60))
    assert accuracy_without(np.ones(3, bool), np.ones(3, bool)) is None
    with pytest.raises(InputError, match=r"left_out is \(2,\) and correct \(3,\)"):
        accuracy_without(np.ones(2, bool), np.ones(3, bool))


@pytest.mark.real_data
@pytest.mark.slow
def test_a_part_of_cifar10_has_the_copies_that_its_readers_found():
    folder = os.environ.get("SIGHTLINE_CIFAR10")
    if not folder:
        pytest.skip("set SIGHTLINE_CIFAR10 to the folder of cifar-10-batches-py")
    data = load_data("cifar10", data_dir=folder)
    found = find_near_duplicates(data.train, data.test)
    assert 0.025 < found.leaked.mean() < 0.04  # 3.3 % by eye: Barz & Denzler 2020
    assert found.pairs["same_label"].mean() > 0.99


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    return np.roll(images, (down, right), (1, 2))


def test_the_best_shift_is_that_of_loops_over_shifts_and_cells():
    images = np.concatenate([clouds(3, 20, size=32), moved(clouds(3, 20, size=32), 4, -2)])
    coarse_images = coarse(images)
    a, b = np.array([0, 1, 2, 0]), np.array([3, 4, 5, 5])
    for upside_down in (False, True):
        found = best_shift(coarse_images, a, b, upside_down=upside_down)
        for place in range(4):
            one = images[a[place]][::-1] if upside_down else images[a[place]]
            cells, others = (
                picture.reshape(16, 2, 16, 2, 3).mean((1, 3)) for picture in (one, images[b[place]])
            )

            def edge(grid, y, x):
                return np.concatenate([grid[y + 1, x] - grid[y, x], grid[y, x + 1] - grid[y, x]])

            middle = np.array([edge(cells, y, x) for y in range(2, 13) for x in range(2, 13)]).ravel()
            best = -1.0
            for down in range(-2, 3):
                for right in range(-2, 3):
                    window = [edge(others, y + down, x + right) for y in range(2, 13) for x in range(2, 13)]
                    window = np.array(window).ravel()
                    cosine = middle @ window / np.linalg.norm(middle) / np.linalg.norm(window)
                    best = max(best, cosine)
            assert found[place] == pytest.approx(best, abs=1e-5)
    assert best_shift(coarse_images, a, b)[:3].min() > 0.99


def test_moved_and_framed_copies_are_found_with_features_and_nothing_else_is():
    train, test = clouds(400, 21, size=32), clouds(200, 22, size=32)
    test[10] = moved(train[3:4], 4, 2)[0]
    test[11] = 250
    test[11, 3:-3, 3:-3] = train[7, 3:-3, 3:-3]
    test[12] = moved(train[9:10], 0, -4)[0]
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(400, 20)), rng.normal(size=(200, 20))]
    features[1][[10, 11, 12]] = features[0][[3, 7, 9]] + 0.1 * rng.normal(size=(3, 20))
    without = find_near_duplicates(split(train), split(test))
    assert not np.isin([10, 12], np.flatnonzero(without.leaked)).any()
    found = find_near_duplicates(split(train), split(test), features=(features[0], features[1]))
    assert {i: found.test_nearest[i] for i in np.flatnonzero(found.leaked)} == {10: 3, 11: 7, 12: 9}
    assert (found.pairs["kind"] == "altered").all()


def test_features_of_other_images_are_refused():
    images = clouds(12, 0)
    eight, four = split(images[:8]), split(images[8:])
    with pytest.raises(InputError, match=r"features are \(5, 2\) and \(4, 2\); 8 training and 4 test"):
        find_near_duplicates(eight, four, features=(np.ones((5, 2)), np.ones((4, 2))))
    with pytest.raises(InputError, match="features have 2 and 3 columns; both splits need those of one"):
        find_near_duplicates(eight, four, features=(np.ones((8, 2)), np.ones((4, 3))))


def test_the_likeness_of_moved_copies_is_that_of_their_edges_times_that_of_their_features():
    rng = np.random.default_rng(3)
    base = rng.integers(0, 256, (300, 8, 8, 3)).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    images = np.concatenate([base, np.roll(base[:10], 2, axis=2)])
    features = rng.normal(size=(310, 24))
    features[300:] = features[:10] + 0.3 * rng.normal(size=(10, 24))
    found = shifted_pairs(Pictures([images]), np.arange(310), features)
    assert set(zip(found.a, found.b, strict=True)) == {(k, 300 + k) for k in range(10)}
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = (unit[found.a] * unit[found.b]).sum(1)
    assert cosine.max() < 0.99
    edges = best_shift(coarse(images), found.a, found.b)
    np.testing.assert_allclose(found.similarity, cosine * edges, rtol=1e-5)
