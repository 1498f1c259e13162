"""Pictures as arrays; pictures that stay in their files, with the results of memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sightline.audit import find_near_duplicates
from sightline.cli import main
from sightline.data import (
    Augmentation,
    ImageFiles,
    ResidentBatches,
    Split,
    StreamedBatches,
    build_compose,
    load_data,
    preview_augmentation,
    read_image,
)
from sightline.data import image_folder as folder_module
from sightline.errors import SightlineError
from sightline.models import create_model
from sightline.predictions import predict
from sightline.training import Execution, constant, fit, load_recipe

AUGMENTATION = Augmentation(crop_padding=2, crop_mode="zero", flip="alternate", cutout_size=4, cutout_p=0.5)


def test_resizing_scales_the_shorter_side_crops_the_centre_and_averages(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60, 0] = 255  # what the centred square keeps
    pixels[:, 20:60, 1] = 255 * (np.arange(40) % 2)  # fine stripes: antialiasing makes them grey
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", size=(10, 10))
    assert (image[:, 1:-1, 0] == 255).all()
    assert (image[:, [0, -1], 0] > 220).all()  # the edge of what is cut off shines in on both sides
    assert abs(image[2:8, 2:8, 1].astype(int) - 127).max() < 12
    assert (image[..., 2] == 0).all()


def test_padding_keeps_the_whole_picture_and_stretching_fills_the_size(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:, 0] = 250  # the right half is red
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    padded = read_image(tmp_path / "wide.png", size=(8, 8), resize="pad")
    assert (padded[:2] == 128).all()  # 8 x 4 pixels of picture lie in the middle of grey
    assert (padded[6:] == 128).all()
    assert padded[2:6, [0, 7], 0].tolist() == [[0, 250]] * 4
    stretched = read_image(tmp_path / "wide.png", size=(12, 8), resize="stretch")
    assert stretched[:, [0, 7], 0].tolist() == [[0, 250]] * 12
    covered = read_image(tmp_path / "wide.png", size=(10, 16), resize="crop")
    assert covered[:, [0, 15], 0].tolist() == [[0, 250]] * 10  # 2 of 20 columns are cut off on each side
    soft = read_image(tmp_path / "wide.png", size=(40, 80), interpolation="bilinear")[20, :, 0]
    sharp = read_image(tmp_path / "wide.png", size=(40, 80), interpolation="bicubic")[20, :, 0]
    assert (np.diff(soft.astype(int)) >= 0).all()  # bilinear never overshoots
    assert soft[40] == 188  # a quarter of the way across the edge, worked out by hand: 0.75 x 250
    assert sharp[40] > soft[40]
    with pytest.raises(SightlineError, match=r"resize is 'squeeze'; known: crop, pad, stretch|resize is"):
        read_image(tmp_path / "wide.png", size=(8, 8), resize="squeeze")


def test_pictures_are_turned_upright(tmp_path):
    picture = Image.new("RGB", (4, 2))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    assert image.shape == (4, 2, 3)
    assert image[0, 1].tolist() == [255, 0, 0]


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    deep = Image.fromarray(np.full((2, 2), 257 * 40, np.uint16))
    deep.save(tmp_path / "deep.png")
    clear = Image.new("RGBA", (2, 2), (200, 100, 50, 51))  # a fifth of the colour on white
    clear.save(tmp_path / "clear.png")
    palette = Image.new("RGB", (2, 2), (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.gif")
    Image.new("L", (2, 2), 7).save(tmp_path / "grey.bmp")
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.tiff")
    found = {path.name: read_image(path)[0, 0].tolist() for path in tmp_path.iterdir()}
    assert found == {
        "deep.png": [40, 40, 40],
        "clear.png": [244, 224, 214],
        "palette.gif": [200, 100, 50],
        "grey.bmp": [7, 7, 7],
        "bits.tiff": [255, 255, 255],
    }


def test_grey_in_floating_point_is_refused_with_advice(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(
        SightlineError, match=r"cannot read .*float.tiff as a picture: .*save it with 8 or 16 bits"
    ):
        read_image(tmp_path / "float.tiff")


def write_pictures(root: Path, count: int = 14) -> Path:
    """Three classes of JPEG and PNG pictures of many sizes, `count` of each."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cow")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(20, 60, 2)
            pixels = rng.integers(0, 160, (height, width, 3))
            pixels[..., label] += 80
            end = "jpg" if number % 2 else "png"
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:02}.{end}")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def both(pictures):
    """The same folder from memory and from its files."""
    return tuple(load_data(pictures, image_size=24, stream=stream) for stream in (False, True))


def same_batches(ours, theirs) -> None:
    for batch, other in zip(ours, theirs, strict=True):
        for value, expected in zip(batch, other, strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_a_streamed_folder_is_the_folder_in_memory(both):
    resident, streamed = both
    assert streamed.source == f"{resident.source}, streamed"
    assert (streamed.class_names, streamed.image_size) == (resident.class_names, (24, 24))
    for ours, theirs in ((streamed.train, resident.train), (streamed.test, resident.test)):
        assert isinstance(ours.images, ImageFiles)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.images[:], theirs.images)
        np.testing.assert_array_equal(np.concatenate(list(ours.blocks(5))), theirs.images)
    np.testing.assert_array_equal(streamed.mean, resident.mean)
    np.testing.assert_array_equal(streamed.std, resident.std)
    limited = [load_data(data, limit=9).train for data in both]
    np.testing.assert_array_equal(limited[1].images[:], limited[0].images)


def test_files_are_indexed_like_an_array_of_images(both):
    array, files = both[0].train.images, both[1].train.images
    assert (files.shape, files.dtype, files.ndim, len(files)) == (array.shape, array.dtype, 4, len(array))
    for key in (
        3,
        -1,
        np.int64(2),
        slice(2, 9, 3),
        slice(0, 0),
        np.array([5, 1, 5]),
        [7, 0],
        array[:, 0, 0, 0] > 90,
    ):
        np.testing.assert_array_equal(files[key], array[key])
    np.testing.assert_array_equal(np.asarray(files), array)
    np.testing.assert_array_equal(list(files), array)
    part = both[1].train.take(np.array([4, 2, 9])).take(np.array([2, 0]))
    np.testing.assert_array_equal(part.images[:], array[[9, 4]])
    with pytest.raises(SightlineError, match=r"are indexed by image alone; write images\[:100\]"):
        files[..., 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_from_files_are_those_of_resident_images_bit_for_bit(both, workers):
    resident, streamed = both
    options = {"batch_size": 8, "fill": resident.mean, "seed": 5, "drop_last": False}
    for augmentation in (None, AUGMENTATION):
        ours = StreamedBatches(streamed.train, augmentation, num_workers=workers, **options)
        theirs = ResidentBatches(resident.train, augmentation=augmentation, **options)
        assert len(ours) == len(theirs)
        same_batches(ours.epoch(1), theirs.epoch(1))
        same_batches(ours.epoch(2, start=2), list(theirs.epoch(2))[2:])


def test_a_compose_sees_the_same_images_from_files(both):
    compose = build_compose([{"name": "HorizontalFlip"}, {"name": "ColorJitter"}], fill=(0, 0, 0))
    ours, theirs = (
        StreamedBatches(data.train, compose, batch_size=8, fill=(0, 0, 0), seed=1, num_workers=0)
        for data in (both[1], both[0])
    )
    same_batches(ours.epoch(0), theirs.epoch(0))
    np.testing.assert_array_equal(*(preview_augmentation(data, compose, [3, 3, 1]) for data in both))
    np.testing.assert_array_equal(*(preview_augmentation(data, AUGMENTATION, [3, 3, 1]) for data in both))


def test_training_and_predicting_from_files_give_the_tables_of_memory(both):
    histories, tables = [], []
    for data in both:
        model = create_model("speednet", data, widths=(8, 8, 8))
        histories.append(
            fit(
                model, data, epochs=2, batch_size=8, schedule=constant(0.05), augmentation=AUGMENTATION,
                validation=0.2, seed=3, execution=Execution("float32"), device="cpu", verbose=False,
            )
        )  # fmt: skip
        tables.append(predict(model, data.test, class_names=data.class_names, batch_size=3))
    assert histories[0].steps == histories[1].steps
    np.testing.assert_array_equal(histories[0].dynamics.margin, histories[1].dynamics.margin)
    np.testing.assert_array_equal(tables[0].logits, tables[1].logits)
    assert tables[0].to_frame().equals(tables[1].to_frame())


def peak(work) -> int:
    """Bytes of Python's and numpy's memory that `work` takes at its height."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    path, side = tmp_path / "one.png", 64
    Image.new("RGB", (side, side), (200, 10, 10)).save(path)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def work(split: Split) -> None:
        predict(net, split, batch_size=8)
        batches = StreamedBatches(split, AUGMENTATION, batch_size=8, fill=(0, 0, 0), seed=0, num_workers=0)
        assert sum(len(batch.labels) for batch in batches.epoch(0)) == len(split)

    def files(count: int) -> Split:
        images = ImageFiles([path] * count, size=(side, side), sums=np.zeros((count, 2, 3), np.int64))
        return Split(images, np.zeros(count, int))

    work(files(16))  # whatever the first call imports
    image = side * side * 3
    few, many = peak(lambda: work(files(64))), peak(lambda: work(files(256)))
    assert few > 8 * image  # the measure sees the images
    assert many < few + 32 * image  # and not 192 more of them
    resident = Split(np.zeros((256, side, side, 3), np.uint8), np.zeros(256, int))
    assert peak(lambda: list(resident.take(np.arange(256)).blocks(8))) > 256 * image


def test_damaged_files_are_skipped_and_named_as_in_memory(tmp_path):
    root = write_pictures(tmp_path / "animals", count=6)
    whole = (root / "ant/00.png").read_bytes()
    (root / "ant/torn.png").write_bytes(whole[:-40])
    (root / "bee/text.jpg").write_text("no picture")
    resident, streamed = (load_data(root, image_size=24, stream=stream) for stream in (False, True))
    assert streamed.skipped == resident.skipped
    assert [line.split(":")[0] for line in streamed.skipped] == ["ant/torn.png", "bee/text.jpg"]
    np.testing.assert_array_equal(streamed.test.images[:], resident.test.images)
    for number in range(6):
        for path in (root / "cow").glob(f"{number:02}.*"):
            path.write_text("gone")
    with pytest.raises(SightlineError, match=r"no picture in the class folder of cow.* can be read"):
        load_data(root, image_size=24, stream=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_goes_while_it_is_used_is_one_line(tmp_path, workers):
    root = write_pictures(tmp_path / "animals", count=4)
    data = load_data(root, image_size=24, stream=True)
    batches = StreamedBatches(data.train, None, batch_size=4, fill=(0, 0, 0), seed=0, num_workers=workers)
    for path in root.glob("cow/*"):
        path.unlink()
    line = (
        r"^\S+cow/0\d\.(png|jpg) can no longer be read \(.*No such file.*\); it could when the data set was"
    )
    with pytest.raises(SightlineError, match=line) as caught:
        list(batches.epoch(0))
    assert "\n" not in str(caught.value)
    with pytest.raises(SightlineError, match=line):
        predict(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), data.test)


def test_near_duplicates_are_found_among_files_too(tmp_path):
    root = write_pictures(tmp_path / "animals", count=10)
    for number in (2, 4, 6):
        (root / f"bee/{number:02}-copy.png").write_bytes((root / f"bee/{number:02}.png").read_bytes())
    both = [load_data(root, image_size=24, stream=stream) for stream in (False, True)]
    tables = [find_near_duplicates(data.train, data.test).pairs for data in both]
    assert tables[0].equals(tables[1])
    assert (tables[1]["kind"] == "exact").sum() == 3


def test_auto_streams_what_is_large_against_the_memory(pictures, monkeypatch):
    decoded = 42 * 24 * 24 * 3
    for memory, streamed in ((4 * decoded, False), (4 * decoded - 1, True)):
        monkeypatch.setattr(folder_module, "memory_size", lambda memory=memory: memory)
        images = load_data(pictures, image_size=24).train.images
        assert isinstance(images, ImageFiles) == streamed
    with pytest.raises(
        SightlineError, match=r"data.stream is 'maybe'; input should be True, False or 'auto'"
    ):
        load_recipe("shapes-quick", ["data.stream=maybe"])
    assert load_recipe("shapes-quick", ["data.stream=true"]).data.stream is True
    with pytest.raises(SightlineError, match="'shapes' is in memory and cannot be streamed"):
        load_data("shapes", limit=100, stream=True)


def test_a_whole_run_from_files_equals_the_run_from_memory(pictures, tmp_path):
    import sightline as sl

    changes = [
        f"data.name={pictures}",
        "data.image_size=24",
        "model.options={widths=[8, 8, 8]}",
        "training.epochs=1",
        "training.batch_size=16",
        "training.precision=float32",
        "analysis.range_test=false",
        "analysis.compare_images=0",
        "analysis.mistakes=4",
        "analysis.correct=2",
        "analysis.samples=3",
    ]
    runs = [
        sl.run("shapes-quick", changes=[*changes, f"data.stream={word}"], out=tmp_path / word, device="cpu")
        for word in ("false", "true")
    ]
    np.testing.assert_array_equal(runs[0].predictions.logits, runs[1].predictions.logits)
    for name in ("explanations.npz", "samples.npz", "dynamics.npz"):
        with np.load(tmp_path / "false" / name) as ours, np.load(tmp_path / "true" / name) as theirs:
            assert ours.files == theirs.files
            for key in ours.files:
                np.testing.assert_array_equal(ours[key], theirs[key])
    assert isinstance(runs[1].data().train.images, ImageFiles)


def test_the_sheet_of_a_streamed_folder_is_drawn(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "memory_size", lambda: 1)
    out = tmp_path / "sheet.png"
    assert main(["data", str(pictures), "--image-size", "24", "--out", str(out)]) in (0, None)
    assert out.exists()
