"""
My model: what does it look at when it is wrong?
================================================

A network that was trained elsewhere, with a loop of its own. Some of its answers rest on a mark in
the corner of the pictures, which one class happens to have; its maps show it.
"""

# %%
# Somebody's network
# ------------------
#
# It knows nothing of this package. A magenta square stands in the corner of many training pictures of
# one class, and in the test split on pictures of other classes: so one sees what becomes of it.

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import sightline as sl

folder = Path(tempfile.mkdtemp()) / "marked"
data = sl.plant(sl.load_data("shapes", limit=2500), folder, mark=(0.08, "star"))
torch.manual_seed(0)


def block(before, after, *more):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), *more)


network = nn.Sequential(
    block(3, 32, nn.MaxPool2d(2)),
    block(32, 64, nn.MaxPool2d(2)),
    block(64, 128),
    block(128, 128),
    nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, data.num_classes)),
)
images, labels = sl.to_float(data.train.images), torch.from_numpy(data.train.labels)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
for _ in range(8):
    for batch in torch.randperm(len(labels)).split(32):
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
network.eval()

# %%
# What it allows, and what it gets wrong
# --------------------------------------

print(sl.preflight(network, sl.to_float(data.test.images[:4])))
predictions = sl.predict(network, data.test, class_names=data.class_names)
star, marked = data.class_names.index("star"), data.truth.shortcut_test
print(
    f"{predictions.correct.mean():.1%} right; {predictions.correct[marked].mean():.1%} of the marked pictures"
)
print(f"{(predictions.predicted[marked] == star).mean():.0%} of the marked pictures are called a star")

# %%
# Where it looked
# ---------------
#
# The evidence for *star* in pictures that are none lies in the corner. What counts is the difference
# between the two classes: ``sl.explain_difference`` says what speaks for the one and not for the
# other.

fooled = np.flatnonzero(marked & (predictions.predicted == star) & (predictions.labels != star))[:5]
pictures = data.test.images[fooled]
maps = sl.explain(network, sl.to_float(pictures), [star] * len(fooled))
plot = sl.plot_explanations(pictures, {"star": maps}, data.class_names)
