"""The outlines of the generated shapes, as signed distances.

Each function takes coordinates `u` (right) and `v` (down), any shape, in units of the shape's
radius, and returns the distance to the outline in the same unit: negative inside. Distances are
exact beside straight and round edges, which is what antialiasing and shading need.
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
