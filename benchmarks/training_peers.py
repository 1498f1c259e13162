"""Seconds per epoch here, in a plain PyTorch loop and in Lightning: same network, batch and augmentation.

    python benchmarks/training_peers.py [--images 2048] [--epochs 2] [--json FILE] [--peers FOLDER]

"sightline": `fit`, crop, flip and cutout on the device for a batch at once. "plain PyTorch": the loop of any
tutorial, with the same transforms as an albumentations.Compose in the workers of a DataLoader, which stay
alive between epochs. "Lightning": its Trainer with that loader, without logger, checkpoints and progress bar.
In each: SGD with Nesterov momentum, one-cycle schedule, loss and accuracy of the epoch, the same precision
and channels_last. The peers' workers hand over bytes, which become floats a batch at a time. Evaluation is
left out everywhere; all three take turns, and the epoch that is timed is the last of each turn.

albumentations comes with the extra of that name. Lightning may lie in a folder of its own:

    pip install --target FOLDER --no-deps pytorch-lightning torchmetrics lightning-utilities
    pip install --target FOLDER --no-deps tqdm PyYAML
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import publish
from torch.nn import functional as F
from torch.utils.data import DataLoader

from sightline.data import Augmentation, Dataset, Split
from sightline.models import MODELS, autocast, choose_precision, create_model
from sightline.training import Execution, fit, one_cycle, sgd

AUGMENTATION = Augmentation(crop_padding=4, flip="random", cutout_size=8)
RATE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), default="speednet")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2, help="of one turn; the last is timed")
    parser.add_argument("--workers", type=int, default=2, help="of the peers' loader")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="folder that Lightning was installed into")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.precision = choose_precision(options.precision, torch.device(options.device))
    data = _random_data(options.images)
    contenders = {"sightline": _sightline, "plain PyTorch": _plain, **_lightning(options.peers)}
    turns = []
    for _ in range(options.repeats):  # each turn begins with an epoch that warms up
        turns.append({name: contender(data, options) for name, contender in contenders.items()})
    rows = []
    for name in contenders:
        seconds = [turn[name] for turn in turns]
        ratios = [turn[name] / turn["sightline"] for turn in turns]
        row = {"loop": name, "model": options.model, "precision": options.precision, "batch": options.batch}
        row |= {"seconds per epoch": round(statistics.median(seconds), 3)}
        row |= {"images/s": round(options.images / statistics.median(seconds), 1)}
        row |= {"times sightline": round(statistics.median(ratios), 2)}
        row |= {"low": round(min(ratios), 2), "high": round(max(ratios), 2), "n": options.repeats}
        rows.append(row)
    publish("training_peers", rows, device=options.device, json_file=options.json)


def _random_data(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    train = Split(images, rng.integers(0, 10, count))
    return Dataset("random", tuple("0123456789"), train, train.take(np.arange(2)))


def _sightline(data: Dataset, options: argparse.Namespace) -> float:
    history = fit(
        create_model(options.model, data),
        data,
        epochs=options.epochs,
        batch_size=options.batch,
        optimizer=sgd(momentum=0.9, nesterov=True),
        schedule=one_cycle(RATE),
        augmentation=AUGMENTATION,
        execution=Execution(options.precision),
        device=options.device,
        verbose=False,
    )
    return options.images / history.epochs[-1]["images_per_second"]


class _Augmented(torch.utils.data.Dataset):
    """One image at a time: albumentations, then (3, H, W) uint8."""

    def __init__(self, data: Dataset) -> None:
        self.split = data.train
        self.transform = AUGMENTATION.to_albumentations(data.image_size, fill=data.mean.tolist())

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = self.transform(image=self.split.images[index])["image"]
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.split.labels[index])


def _loader(data: Dataset, options: argparse.Namespace) -> DataLoader:
    return DataLoader(
        _Augmented(data),
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=options.device.startswith("cuda"),
        worker_init_fn=_single_thread,
    )


def _single_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)


def _optimizer(
    model: torch.nn.Module, steps: int
) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.OneCycleLR]:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=steps, cycle_momentum=False
    )
    return optimizer, schedule


def _plain(data: Dataset, options: argparse.Namespace) -> float:
    device = torch.device(options.device)
    model = create_model(options.model, data).to(device, memory_format=torch.channels_last).train()
    loader = _loader(data, options)
    optimizer, schedule = _optimizer(model, options.epochs * len(loader))
    seconds = 0.0
    for _ in range(options.epochs):
        begin = time.perf_counter()
        total, hits = torch.zeros((), device=device), torch.zeros((), device=device)
        for batch, targets in loader:
            images = batch.to(device, memory_format=torch.channels_last, non_blocking=True).float().div_(255)
            labels = targets.to(device, non_blocking=True)
            with autocast(device, options.precision):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(labels)
            hits += (logits.argmax(1) == labels).sum()
        float(total), float(hits)  # what a log shows; waits for the device
        seconds = time.perf_counter() - begin
    return seconds


def _lightning(folder: Path | None) -> dict[str, Callable[[Dataset, argparse.Namespace], float]]:
    """The contender's name and function, or nothing and a line that says why."""
    if folder:
        sys.path.append(str(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import lightning.pytorch as library  # type: ignore
            except ImportError:
                import pytorch_lightning as library  # type: ignore
    except ImportError as error:
        print(f"Lightning is left out: {error}")
        return {}
    logging.getLogger(library.__name__).setLevel(logging.ERROR)
    return {
        f"Lightning {library.__version__}": lambda data, options: _lightning_epoch(library, data, options)
    }


def _lightning_epoch(library: Any, data: Dataset, options: argparse.Namespace) -> float:
    class Module(library.LightningModule):
        def __init__(self, steps: int) -> None:
            super().__init__()
            self.net, self.steps = create_model(options.model, data), steps

        def training_step(self, batch: list[torch.Tensor], step: int) -> torch.Tensor:
            images = batch[0].contiguous(memory_format=torch.channels_last).float().div_(255)
            logits = self.net(images).float()
            loss = F.cross_entropy(logits, batch[1])
            self.log("loss", loss.detach(), on_step=False, on_epoch=True)
            self.log("accuracy", (logits.argmax(1) == batch[1]).float().mean(), on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer, schedule = _optimizer(self, self.steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Clock(library.Callback):
        seconds = 0.0

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.begin = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.seconds = time.perf_counter() - self.begin

    loader, clock = _loader(data, options), Clock()
    module = Module(options.epochs * len(loader)).to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = library.Trainer(
            max_epochs=options.epochs,
            accelerator="gpu" if options.device.startswith("cuda") else "cpu",
            devices=1,
            precision={"float32": "32-true", "bfloat16": "bf16-mixed"}[options.precision],
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    return clock.seconds


if __name__ == "__main__":
    main()
