"""Stand-ins for the transformers of three libraries: their module names and layouts, with little else.

    vit_timm           timm's VisionTransformer: patch_embed.proj, blocks.0.norm1, norm; a class token
    vit_timm_pooled    the same with pooled patches
    deit_timm          timm's VisionTransformerDistilled: class and distillation token, two heads
    vit_torchvision    torchvision's: conv_proj, encoder.layers.encoder_layer_0.ln_1, encoder.ln
    vit_hugging_face   ViTForImageClassification: layers return tuples, the model an object with logits
    swin_timm          timm's SwinTransformer: (B, h, w, C) throughout, halved on the way; norm, head.fc
    swin_torchvision   torchvision's: features.0 to features.3 (B, h, w, C), norm, permute, avgpool
    swin_hugging_face  SwinForImageClassification: (B, N, C), layernorm, pooled over tokens

Attention is over all tokens where Swin's is over windows: the layout is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """One head: (B, ..., C) to the same, over all tokens; fused as the libraries do it, or spelt out."""

    fused = True

    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        tokens = x.flatten(1, -2)  # (B, N, C)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            mixed = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v
        return self.proj(mixed).view_as(x)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    """A pre-norm block; `names` are those of its two normalisations and its attention."""

    def __init__(self, width: int, names=("norm1", "norm2", "attn"), wrap=False):
        super().__init__()
        self.names, self.wrap = names, wrap
        for name in names[:2]:
            self.add_module(name, nn.LayerNorm(width))
        self.add_module(names[2], Attention(width))
        self.mlp = mlp(width)

    def forward(self, x):
        first, second, attention = (getattr(self, name) for name in self.names)
        x = x + attention(first(x))
        x = x + self.mlp(second(x))
        return (x,) if self.wrap else x


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int, name: str = "proj", flat: bool = True):
        super().__init__()
        self.name, self.flat = name, flat
        self.add_module(name, nn.Conv2d(3, width, patch, patch))

    def forward(self, x):
        x = getattr(self, self.name)(x)  # (B, C, h, w)
        return x.flatten(2).mT if self.flat else x.permute(0, 2, 3, 1)


class ViTTimm(nn.Module):
    def __init__(
        self, extra: int = 1, pooled: bool = False, width: int = 8, patch: int = 4, classes: int = 5
    ):
        super().__init__()
        self.pooled, self.extra = pooled, extra
        self.patch_embed = PatchEmbed(width, patch)
        self.prefix = nn.Parameter(torch.randn(1, extra, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)
        self.head, self.head_dist = nn.Linear(width, classes), nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x))  # (B, extra + N, C)
        if self.pooled:
            return self.head(x[:, self.extra :].mean(1))
        if self.extra == 2:
            return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        return self.head(x[:, 0])


def vit_timm() -> nn.Module:
    return ViTTimm()


def vit_timm_pooled() -> nn.Module:
    return ViTTimm(pooled=True)


def deit_timm() -> nn.Module:
    return ViTTimm(extra=2)


class _Encoder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        names = ("ln_1", "ln_2", "self_attention")
        layers = [(f"encoder_layer_{i}", Block(width, names)) for i in range(2)]
        self.layers = nn.Sequential(OrderedDict(layers))
        self.ln = nn.LayerNorm(width)

    def forward(self, x):
        return self.ln(self.layers(x))


class ViTTorchvision(nn.Module):
    def __init__(self, width: int = 8, patch: int = 4, classes: int = 5):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = _Encoder(width)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, classes)))

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).mT
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return self.heads(self.encoder(x)[:, 0])


def vit_torchvision() -> nn.Module:
    return ViTTorchvision()


class _Embeddings(nn.Module):
    def __init__(self, width: int, patch: int, token: bool):
        super().__init__()
        self.patch_embeddings = PatchEmbed(width, patch, "projection")
        self.cls_token = nn.Parameter(torch.randn(1, int(token), width))

    def forward(self, x):
        x = self.patch_embeddings(x)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)


class _Layers(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        names = ("layernorm_before", "layernorm_after", "attention")
        self.layer = nn.ModuleList(Block(width, names, wrap=True) for _ in range(2))

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)[0]
        return SimpleNamespace(last_hidden_state=x)


class _Base(nn.Module):
    def __init__(self, width: int, patch: int, token: bool):
        super().__init__()
        self.embeddings = _Embeddings(width, patch, token)
        self.encoder = _Layers(width)
        self.layernorm = nn.LayerNorm(width)

    def forward(self, x):
        return self.layernorm(self.encoder(self.embeddings(x)).last_hidden_state)


class HuggingFace(nn.Module):
    def __init__(self, name: str, width: int = 8, patch: int = 4, classes: int = 5):
        super().__init__()
        self.add_module(name, _Base(width, patch, token=name == "vit"))
        self.name, self.pooler = name, nn.AdaptiveAvgPool1d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        x = getattr(self, self.name)(x)  # (B, N, C)
        x = x[:, 0] if self.name == "vit" else self.pooler(x.mT).flatten(1)
        return SimpleNamespace(logits=self.classifier(x))


def vit_hugging_face() -> nn.Module:
    return HuggingFace("vit")


def swin_hugging_face() -> nn.Module:
    return HuggingFace("swin")


class PatchMerging(nn.Module):
    """(B, h, w, C) to (B, h/2, w/2, 2C)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        x = torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1)
        return self.reduction(self.norm(x))


class Permute(nn.Module):
    def __init__(self, *order: int):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(self.order)


class SwinTimm(nn.Module):
    def __init__(self, width: int = 8, patch: int = 2, classes: int = 5):
        super().__init__()
        self.patch_embed = PatchEmbed(width, patch, flat=False)
        self.layers = nn.Sequential(
            nn.Sequential(Block(width)), nn.Sequential(PatchMerging(width), Block(2 * width))
        )
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.ModuleDict({"fc": nn.Linear(2 * width, classes)})

    def forward(self, x):
        x = self.norm(self.layers(self.patch_embed(x)))  # (B, h, w, C)
        return self.head["fc"](x.mean((1, 2)))


def swin_timm() -> nn.Module:
    return SwinTimm()


class SwinTorchvision(nn.Module):
    def __init__(self, width: int = 8, patch: int = 2, classes: int = 5):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, width, patch, patch), Permute(0, 2, 3, 1), nn.LayerNorm(width))
        merging = PatchMerging(width)
        self.features = nn.Sequential(
            stem, nn.Sequential(Block(width)), merging, nn.Sequential(Block(2 * width))
        )
        self.norm = nn.LayerNorm(2 * width)
        self.permute = Permute(0, 3, 1, 2)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x):
        x = self.permute(self.norm(self.features(x)))
        return self.head(self.flatten(self.avgpool(x)))


def swin_torchvision() -> nn.Module:
    return SwinTorchvision()
