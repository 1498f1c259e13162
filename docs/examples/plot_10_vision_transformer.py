"""
A vision transformer: where do its tokens look?
===============================================

Tokens instead of a grid of cells, attention instead of convolution. ``sl.explain`` finds the block
whose tokens all evidence passes, and where each of them lies in the picture; it says how, or
refuses. Here it shows that a model which is always right in training looks at the wrong thing.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import sightline as sl

# %%
# A small transformer
# -------------------
#
# Written and trained here, in seconds; a pretrained ``timm/...`` or ``hf/...`` is explained the same
# way.


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):  # (B, N, D)
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    def __init__(self, num_classes, width=48, depth=2, side=8):
        super().__init__()
        self.embed = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(1, side * side, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def forward(self, images):  # (B, 3, 32, 32)
        x = self.embed(images - 0.5).flatten(2).transpose(1, 2) + self.position  # (B, 64, D)
        return self.head(self.norm(self.blocks(x)).mean(1))


# %%
# The pictures
# ------------
#
# One of four textures lies somewhere on a noisy ground. In training the ground behind two of them is
# a little brighter.

TEXTURES = {
    "stripes": np.tile([[0, 0, 1, 1]], (8, 2)).astype(float),
    "bars": np.tile([[0], [0], [1], [1]], (2, 8)).astype(float),
    "checks": np.kron(np.tile([[0, 1], [1, 0]], (2, 2)), np.ones((2, 2))),
    "plain": np.full((8, 8), 0.5),
}


def draw(count, seed, cheat):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.normal(110, 30, (count, 32, 32, 1)) + np.zeros(3)
    corners = 4 * rng.integers(0, 7, (count, 2))
    for image, label, (row, column) in zip(images, labels, corners, strict=True):
        image += 25 * (label >= 2 if cheat else rng.random() < 0.5)
        image[row : row + 8, column : column + 8] = 60 + 130 * list(TEXTURES.values())[label][..., None]
    return sl.Split(images.clip(0, 255).astype(np.uint8), labels), corners


(train, _), (test, corners) = draw(1500, 0, cheat=True), draw(400, 1, cheat=False)
data = sl.Dataset("textures", tuple(TEXTURES), train, test)
torch.manual_seed(0)
model = SmallViT(4)
schedule = sl.SCHEDULES["one_cycle"](2e-3)
adamw = sl.OPTIMIZERS["adamw"]()
sl.fit(model, data, epochs=6, batch_size=32, optimizer=adamw, schedule=schedule, verbose=False)
predictions = sl.predict(model, data.test, class_names=data.class_names)
trained = sl.predict(model, data.train, class_names=data.class_names)
print(f"training accuracy {trained.correct.mean():.1%}, test accuracy {predictions.correct.mean():.1%}")

# %%
# The layer, and why this one
# ---------------------------

wrong = sl.rank_mistakes(predictions, limit=5)["index"].to_numpy()
images = data.test.images[wrong]
maps = sl.explain(model, sl.to_float(images), method="hires_cam")
print(maps.layer, "with maps of", maps.maps.shape[1:], "tokens:", maps.layer_reason)

# %%
# Where the evidence lies
# -----------------------
#
# The share of the positive evidence for the answer that lies on the texture, which is 4 of 64 tokens,
# or 6 %.

every = sl.explain(model, sl.to_float(data.test.images), method="hires_cam").maps.clip(0)
inside = np.zeros(every.shape, bool)
for box, (row, column) in zip(inside, corners // 4, strict=True):
    box[row : row + 2, column : column + 2] = True
share = (every * inside).sum((1, 2)) / every.sum((1, 2)).clip(1e-9)
for name, chosen in (("right", predictions.correct), ("wrong", ~predictions.correct)):
    print(f"{name}: {share[chosen].mean():.0%} of the evidence is on the texture ({chosen.sum()} pictures)")

# %%
# The mistakes: the evidence for the wrong answer is the ground, all over the picture.

true = sl.explain(model, sl.to_float(images), data.test.labels[wrong], method="hires_cam")
both = {"predicted": maps, "true": true}
plot = sl.plot_explanations(images, both, data.class_names)
