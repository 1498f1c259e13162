"""Draw pictures of shapes: textured ground, small distractors, one shaded object, often an occluder.

Everything is drawn for a batch of pictures at once, in float32, (n, SIZE, SIZE). Each edge is a
signed distance in pixels, so a pixel's cover is `clip(0.5 - distance, 0, 1)`: antialiased with no
supersampling.

The outlines of the shapes are signed distances, too: each function takes coordinates `u` (right) and `v`
(down), any shape, in units of the shape's radius, and returns the distance to the outline in the same unit:
negative inside. Distances are exact beside straight and round edges, which is what antialiasing and shading
need.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Silhouette = Callable[[np.ndarray, np.ndarray], np.ndarray]


def circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.85


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) - 0.75


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _half_planes(u, v - 0.12, angles=(90, 210, 330), distance=0.52)


def hexagon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _half_planes(u, v, angles=range(0, 360, 60), distance=0.82)


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points at radius 1, five corners at radius 0.42: one edge, seen in a fan of ten mirrors."""
    sector = np.float32(np.pi / 5)
    angle = abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)
    radius = np.hypot(u, v)
    corner = 0.42 * np.array([np.cos(sector), np.sin(sector)])
    edge = corner - (1, 0)
    normal = np.array([edge[1], -edge[0]], np.float32) / np.float32(np.hypot(*edge))
    return (radius * np.cos(angle) - 1) * normal[0] + radius * np.sin(angle) * normal[1]


def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = abs(u), abs(v)
    return np.minimum(np.maximum(a - 0.95, b - 0.31), np.maximum(a - 0.31, b - 0.95))


def ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return abs(np.hypot(u, v) - 0.7) - 0.2


def heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A square on its corner with half a disc on each of its two upper sides."""
    half, turn = 0.5, np.float32(np.sqrt(0.5))
    v = v - 0.15
    a, b = (u - v) * turn, (-u - v) * turn  # axes towards the upper right and the upper left side
    lobes = np.minimum(np.hypot(a - half, b), np.hypot(a, b - half)) - half
    return np.minimum(np.maximum(abs(a), abs(b)) - half, lobes)


def crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u + 0.1, v) - 0.9, 0.72 - np.hypot(u - 0.38, v))


def arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    side = abs(v)
    slope = np.float32(np.hypot(0.95, 0.8))
    head = np.maximum(0.0 - u, ((u - 0.95) * 0.8 + side * 0.95) / slope)
    shaft = np.maximum(abs(u + 0.4) - 0.55, side - 0.27)
    return np.minimum(head, shaft)


SILHOUETTES: dict[str, Silhouette] = {
    shape.__name__: shape
    for shape in (circle, square, triangle, star, cross, ring, heart, crescent, hexagon, arrow)
}


def _half_planes(u: np.ndarray, v: np.ndarray, *, angles: range | tuple[int, ...], distance: float):
    turns = np.deg2rad(np.array(angles, np.float32))
    sides = [u * np.cos(turn) + v * np.sin(turn) for turn in turns]
    return np.maximum.reduce(sides) - distance


SIZE = 32  # pixels

_X, _Y = np.meshgrid(np.arange(SIZE, dtype=np.float32) + 0.5, np.arange(SIZE, dtype=np.float32) + 0.5)


def draw(silhouette: Silhouette, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` pictures of one shape and the masks of what is visible of it.

    Pictures are uint8 (count, SIZE, SIZE, 3); masks bool (count, SIZE, SIZE). Position, size, rotation,
    colours and textures are drawn from `rng` and say nothing about the shape.
    """
    ground_light = _uniform(rng, count, 0.2, 0.8)
    image = _paint(_texture(count, rng), _palette(ground_light, rng, contrast=0.09))
    for _ in range(2):
        _cover(image, _strokes(count, rng, radius=(0.5, 1.4)), _palette(_uniform(rng, count, 0.1, 0.9), rng))

    distance, u, v = _positioned(silhouette, count, rng)  # (n, SIZE, SIZE), pixels
    cover = np.clip(0.5 - distance, 0, 1)
    shadow = 0.4 * np.roll(cover, (1, 1), axis=(1, 2))[..., None]
    image *= 1 - shadow
    step = _uniform(rng, count, 0.2, 0.45)
    darker = rng.random((count, 1, 1)) < ground_light
    light = np.where(darker, ground_light - step, ground_light + step)
    paint = _paint(_texture(count, rng), _palette(light, rng, contrast=0.08))
    paint *= _shading(distance, u, v, rng)[..., None]
    _blend(image, paint, cover)

    bar = _strokes(count, rng, radius=(0.9, 1.7), near_centre=True)
    bar += 99 * (rng.random((count, 1, 1)) < 0.7)  # the others lie outside the picture
    _cover(image, bar, _palette(_uniform(rng, count, 0.1, 0.9), rng))
    image += rng.standard_normal(image.shape, np.float32) * _uniform(rng, count, 0.005, 0.035)[..., None]
    visible = (cover > 0.5) & (bar > 0)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), visible


def _uniform(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    return low + (high - low) * rng.random((count, 1, 1), np.float32)


def _palette(light: np.ndarray, rng: np.random.Generator, *, contrast: float = 0.0) -> np.ndarray:
    """Two colours per picture, (2, n, 1, 1, 3): any hue, `light` on average, `contrast` to either side."""
    count = len(light)
    hue = 2 * np.pi * rng.random((count, 1, 1, 1)) + rng.uniform(-0.6, 0.6, (2, count, 1, 1, 1))
    chroma = rng.uniform(0.02, 0.22, (2, count, 1, 1, 1))
    sway = contrast * np.array([-1, 1]).reshape(2, 1, 1, 1, 1)
    colours = light[None, ..., None] + sway + chroma * np.cos(hue - np.arange(3) * 2 * np.pi / 3)
    return np.clip(colours, 0, 1).astype(np.float32)


def _paint(field: np.ndarray, palette: np.ndarray) -> np.ndarray:
    return palette[0] + field[..., None] * (palette[1] - palette[0])  # (n, SIZE, SIZE, 3)


def _blend(image: np.ndarray, paint: np.ndarray, cover: np.ndarray) -> None:
    image += cover[..., None] * (paint - image)


def _cover(image: np.ndarray, distance: np.ndarray, palette: np.ndarray) -> None:
    _blend(image, palette[0], np.clip(0.5 - distance, 0, 1))


def _texture(count: int, rng: np.random.Generator) -> np.ndarray:
    """One of six textures per picture, (count, SIZE, SIZE) in [0, 1], turned and scaled at random."""
    kinds = (_plain, _gradient, _stripes, _checks, _dots, _clouds)
    kind = rng.integers(len(kinds), size=count)
    field = np.empty((count, SIZE, SIZE), np.float32)
    for number, texture in enumerate(kinds):
        chosen = np.flatnonzero(kind == number)
        turn = _uniform(rng, len(chosen), 0, 2 * np.pi)
        wave = 2 * np.pi / _uniform(rng, len(chosen), 4, 12)  # radians per pixel
        phase = rng.random((2, len(chosen), 1, 1), np.float32) * 2 * np.pi
        a = (_X * np.cos(turn) + _Y * np.sin(turn)) * wave + phase[0]
        b = (_Y * np.cos(turn) - _X * np.sin(turn)) * wave + phase[1]
        field[chosen] = texture(a, b, rng)
    return field


def _plain(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full_like(a, 0.5)


def _gradient(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = a.min(axis=(1, 2), keepdims=True), a.max(axis=(1, 2), keepdims=True)
    return (a - low) / (high - low)


def _stripes(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.5 + 1.2 * np.sin(a), 0, 1)


def _checks(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.5 + 3 * np.sin(a * 0.7) * np.sin(b * 0.7), 0, 1)


def _dots(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(2 * (np.sin(a) + np.sin(b)) - 1.6, 0, 1)


def _clouds(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two octaves of random grids, blown up smoothly."""
    field = np.zeros_like(a)
    for cells, weight in ((4, 0.75), (9, 0.45)):
        grid = rng.random((len(a), cells + 1, cells + 1), np.float32)
        rise = _smooth_rows(cells)  # (SIZE, cells + 1)
        field += weight * (rise @ grid @ rise.T)
    return np.clip(field * 1.6 - 0.45, 0, 1)


def _smooth_rows(cells: int) -> np.ndarray:
    position = (np.arange(SIZE, dtype=np.float32) + 0.5) * cells / SIZE
    away = np.clip(1 - abs(position[:, None] - np.arange(cells + 1)), 0, 1)
    return (away * away * (3 - 2 * away)).astype(np.float32)


def _positioned(
    silhouette: Silhouette, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the outline in pixels, and the picture's coordinates about the centre, in radii."""
    radius = _uniform(rng, count, 7, 12.5)
    reach = SIZE / 2 - radius - 0.5
    x = _X - SIZE / 2 - reach * _uniform(rng, count, -1, 1)
    y = _Y - SIZE / 2 - reach * _uniform(rng, count, -1, 1)
    turn = _uniform(rng, count, -0.6, 0.6)
    u = (x * np.cos(turn) + y * np.sin(turn)) / radius
    v = (y * np.cos(turn) - x * np.sin(turn)) / radius
    return silhouette(u, v) * radius, x / radius, y / radius


def _shading(distance: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side and a darker rim."""
    turn, strength = _uniform(rng, len(u), 0, 2 * np.pi), _uniform(rng, len(u), 0.0, 0.22)
    rim = _uniform(rng, len(u), 0.0, 0.45) * np.exp(np.minimum(distance, 0) / 0.9)
    return (1 + strength * (u * np.cos(turn) + v * np.sin(turn))) * (1 - rim)


def _strokes(
    count: int, rng: np.random.Generator, *, radius: tuple[float, float], near_centre: bool = False
) -> np.ndarray:
    """Distance in pixels to one short round-ended stroke per picture, (count, SIZE, SIZE)."""
    spread = SIZE * (0.22 if near_centre else 0.5)
    x = _X - SIZE / 2 - _uniform(rng, count, -spread, spread)
    y = _Y - SIZE / 2 - _uniform(rng, count, -spread, spread)
    half = _uniform(rng, count, 4, 9) if near_centre else _uniform(rng, count, 0, 5)
    turn = _uniform(rng, count, 0, 2 * np.pi)
    along = abs(x * np.cos(turn) + y * np.sin(turn))
    across = y * np.cos(turn) - x * np.sin(turn)
    return np.hypot(np.maximum(along - half, 0), across) - _uniform(rng, count, *radius)
