"""Cats and dogs drawn with Pillow, for a machine that has no photographs.

Colours, backgrounds, sizes, places and poses have the same distributions for both classes, so only shape differs: a
cat has pointed ears, slit pupils, whiskers and a long curled tail; a dog has hanging ears, round pupils, a muzzle, a
tongue and a short tail.
"""

import hashlib
import math
import random
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field, NonNegativeInt

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.images import Images
from transfer_learning.utilities.validation import validated

VERSION = 1  # raise it when a drawing changes: cached pixels and the split depend on it
SIDE = 400  # drawn large: resizing smooths the edges
INK, WHITE = (30, 25, 30), (245, 245, 240)
Points = list[tuple[float, float]]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


@validated
class Cartoons:
    """As many drawings of cats (0) and dogs (1) as the three splits need; another seed gives other drawings."""

    def __init__(
        self,
        train_per_class: Count = 1500,
        val_per_class: Count = 500,
        test_per_class: Count = 500,
        drawing_seed: NonNegativeInt = 0,
    ):
        self.per_class = train_per_class + val_per_class + test_per_class
        self.drawing_seed = drawing_seed

    def list_images(self, file_digests: FileDigests) -> Images:
        """The digests are those of the drawings' descriptions, since a drawing is a function of its description."""
        labels = np.arange(2 * self.per_class, dtype=np.int64) % 2
        seed, numbers = self.drawing_seed, range(len(labels))
        described = [f"cartoon {number} of seed {seed}, version {VERSION}" for number in numbers]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in described]
        names = [f"cartoon-{number}-seed{seed}" for number in numbers]
        return Images(names, labels, ("cat", "dog"), digests, lambda n: cartoon(int(labels[n]), described[n]))


def cartoon(label: int, seed: str) -> Image.Image:
    """Draws a cat (0) or a dog (1): a (400, 400) RGB image, a function of its arguments."""
    chance = random.Random(seed)
    image = Image.new("RGB", (SIDE, SIDE), _colour(chance))
    draw = ImageDraw.Draw(image)
    for _ in range(chance.randrange(6)):  # shapes in the background
        x, y, size = chance.uniform(0, SIDE), chance.uniform(0, SIDE), chance.uniform(20, 130)
        shape = chance.choice((draw.ellipse, draw.rectangle))
        shape((x - size, y - size * chance.uniform(0.3, 1), x + size, y + size), fill=_colour(chance))

    fur, patch = _colour(chance), _colour(chance)
    scale, mirror, lean = chance.uniform(48, 82), chance.choice((-1, 1)), math.radians(chance.uniform(-20, 20))
    place = SIDE / 2 + chance.uniform(-60, 60), SIDE / 2 - 25 + chance.uniform(-50, 50)
    body = Pen(draw, place, scale, mirror, lean)
    neck = body.at(chance.uniform(-0.25, 0.25), chance.uniform(-0.15, 0.15))
    tilt = math.radians(chance.uniform(-25, 25))
    head = Pen(draw, neck, scale, mirror, lean + tilt)
    (_cat if label == 0 else _dog)(body, head, fur, patch, chance)
    return image


class Pen:
    """Draws in units of a head's radius around `place` (pixels), turned by `angle` (radians); y points down."""

    def __init__(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], scale: float, mirror: int, angle: float):
        self.draw, self.place, self.scale, self.mirror = draw, place, scale, mirror
        self.cos, self.sin = math.cos(angle), math.sin(angle)

    def at(self, x: float, y: float) -> tuple[float, float]:
        x, y = self.mirror * x * self.scale, y * self.scale
        return self.place[0] + self.cos * x - self.sin * y, self.place[1] + self.sin * x + self.cos * y

    def shape(self, points: Points, fill: tuple) -> None:
        outline = [self.at(*point) for point in points]
        self.draw.polygon(outline, fill=fill)
        self.draw.line([*outline, outline[0]], fill=INK, width=3, joint="curve")

    def oval(self, x: float, y: float, width: float, height: float, fill: tuple, turn: float = 0) -> None:
        cos, sin = math.cos(turn), math.sin(turn)
        circle = [(width * math.cos(step * math.pi / 20), height * math.sin(step * math.pi / 20)) for step in range(40)]
        self.shape([(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in circle], fill)

    def line(self, points: Points, fill: tuple = INK, width: float = 0.05) -> None:
        thickness = max(2, round(width * self.scale))
        self.draw.line([self.at(*point) for point in points], fill=fill, width=thickness, joint="curve")


def _cat(body: Pen, head: Pen, fur: tuple, patch: tuple, chance: random.Random) -> None:
    curl = chance.uniform(0.8, 1.2)
    tail = [(0.8 + curl * math.sin(t / 4), 2.2 - t / 7 + 0.35 * math.sin(t / 1.5)) for t in range(13)]
    body.line(tail, fur, width=0.24)
    body.oval(0, 1.75, 0.95, 1.25, fur)
    for side in (-1, 1):
        body.oval(side * 0.4, 2.8, 0.32, 0.22, patch)
        tip = chance.uniform(1.45, 1.8)
        head.shape([(side * 0.95, -0.25), (side * 0.85, -tip), (side * 0.2, -0.8)], fur)
        head.shape([(side * 0.8, -0.55), (side * 0.78, -tip + 0.3), (side * 0.42, -0.8)], patch)
    head.oval(0, 0, 1.08, 0.9, fur)
    for side in (-1, 1):
        head.oval(side * 0.42, -0.12, 0.25, 0.2, WHITE)
        head.oval(side * 0.42, -0.12, 0.05, 0.17, INK)
        for rise in (-0.2, 0, 0.2):
            head.line([(side * 0.3, 0.42), (side * 1.5, 0.4 + rise * 1.6)], width=0.04)
        head.line([(0, 0.42), (side * 0.12, 0.56), (side * 0.3, 0.52)])
    head.shape([(-0.14, 0.24), (0.14, 0.24), (0, 0.42)], patch)


def _dog(body: Pen, head: Pen, fur: tuple, patch: tuple, chance: random.Random) -> None:
    wag = chance.uniform(-0.3, 0.3)
    body.line([(0.75, 2.1), (1.25, 1.6), (1.5 + wag, 1.05)], fill=fur, width=0.3)
    body.oval(0, 1.8, 1.0, 1.25, fur)
    for side in (-1, 1):
        body.oval(side * 0.45, 2.85, 0.38, 0.24, patch)
    head.oval(0, 0, 0.88, 0.98, fur)
    for side in (-1, 1):
        swing = chance.uniform(0.05, 0.45)
        head.oval(side * (0.92 + swing / 3), 0.1, 0.32, chance.uniform(0.75, 0.95), patch, turn=-side * swing)
        head.oval(side * 0.34, -0.25, 0.2, 0.2, WHITE)
        head.oval(side * 0.34, -0.22, 0.11, 0.11, INK)
    head.oval(0, 0.95, 0.18, 0.34, _colour(chance))  # the tongue, behind the muzzle
    head.oval(0, 0.48, 0.55, 0.45, fur)
    head.oval(0, 0.26, 0.24, 0.17, patch)
    head.line([(-0.3, 0.68), (0, 0.6), (0.3, 0.68)])
    head.line([(0, 0.42), (0, 0.6)])


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(40, 235), chance.randrange(40, 235), chance.randrange(40, 235)
