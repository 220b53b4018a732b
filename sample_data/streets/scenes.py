"""Small procedural street scenes: a colour image, a depth image and the class of every pixel.

`render(seed, condition)` needs numpy only and gives the same scene for the same arguments. The seed alone decides what
stands in the street; the condition decides light, weather and what both sensors lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 64, 96
CLASS_NAMES = [
    "sky",
    "building",
    "road",
    "sidewalk",
    "tree",
    "car",
    "lane_marking",
    "fence",
    "pole",
    "pedestrian",
    "sign",
    "cyclist",
    "traffic_light",
    "animal",
]
SKY, BUILDING, ROAD, SIDEWALK, TREE, CAR, LANE, FENCE, POLE, PEDESTRIAN, SIGN, CYCLIST, LIGHT, ANIMAL = range(14)
FAR = 100.0
"""Metres: the depth of the sky, and of any pixel from which no signal comes back."""

SCALE = 2
"""Scenes are drawn at twice the size and averaged, so that small things and edges mix with what is behind them."""
H, W = HEIGHT * SCALE, WIDTH * SCALE
FOCAL = 0.8 * W
KERB = 0.1

Array = NDArray[Any]
Colour = tuple[float, float, float] | Array


@dataclass(frozen=True)
class Weather:
    """What a condition does. Lengths in metres, colours and noise in 0 ... 1."""

    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky_top: tuple[float, float, float] = (0.45, 0.62, 0.88)
    sky_low: tuple[float, float, float] = (0.80, 0.86, 0.92)
    leaves: tuple[tuple[float, float, float], ...] = ((0.22, 0.40, 0.16), (0.30, 0.42, 0.20), (0.18, 0.32, 0.18))
    leaf_cover: float = 0.92
    shadow: float = 0.0
    clouds: float = 0.1
    visibility: float = 400.0
    haze: tuple[float, float, float] = (0.78, 0.80, 0.83)
    snow: float = 0.0
    wet: float = 0.0
    streaks: int = 0
    night: bool = False
    noise: float = 0.025
    depth_noise: float = 0.03
    depth_dropout: float = 0.02
    depth_range: float = 1e9
    depth_speckle: float = 0.003


TRAIN_WEATHER = {
    "spring": Weather(
        light=(0.95, 1.0, 0.96),
        leaves=((0.40, 0.56, 0.22), (0.50, 0.55, 0.30), (0.62, 0.48, 0.50)),
        leaf_cover=0.85,
        shadow=0.2,
    ),
    "summer": Weather(light=(1.08, 1.04, 0.96), shadow=0.45, clouds=0.05),
    "sunset": Weather(
        light=(0.95, 0.72, 0.55), sky_top=(0.45, 0.42, 0.60), sky_low=(0.95, 0.66, 0.42), shadow=0.4, clouds=0.2
    ),
    "dawn": Weather(
        light=(0.62, 0.64, 0.80),
        sky_top=(0.32, 0.38, 0.58),
        sky_low=(0.75, 0.64, 0.66),
        visibility=200.0,
        haze=(0.62, 0.60, 0.66),
        noise=0.03,
    ),
}
"""Conditions of the training, validation and test sets."""

UNSEEN_WEATHER = {
    "fog": Weather(
        light=(0.85, 0.87, 0.9),
        sky_top=(0.74, 0.76, 0.78),
        sky_low=(0.76, 0.78, 0.80),
        visibility=28.0,
        haze=(0.75, 0.77, 0.79),
        depth_noise=0.07,
        depth_range=35.0,
        depth_speckle=0.01,
    ),
    "fall": Weather(
        light=(0.98, 0.92, 0.82),
        leaves=((0.72, 0.38, 0.12), (0.78, 0.58, 0.18), (0.50, 0.22, 0.12)),
        leaf_cover=0.75,
        shadow=0.25,
        clouds=0.25,
    ),
    "winter": Weather(
        light=(0.92, 0.95, 1.02),
        sky_top=(0.66, 0.70, 0.76),
        sky_low=(0.82, 0.84, 0.86),
        leaves=((0.32, 0.27, 0.24), (0.42, 0.38, 0.36)),
        leaf_cover=0.45,
        snow=0.75,
        visibility=150.0,
        depth_noise=0.05,
        depth_dropout=0.07,
        depth_speckle=0.01,
    ),
    "winter_night": Weather(
        light=(0.38, 0.40, 0.50),
        sky_top=(0.04, 0.05, 0.10),
        sky_low=(0.10, 0.11, 0.16),
        leaves=((0.32, 0.27, 0.24), (0.42, 0.38, 0.36)),
        leaf_cover=0.45,
        snow=0.75,
        night=True,
        noise=0.05,
        depth_noise=0.04,
        depth_dropout=0.04,
    ),
    "rain": Weather(
        light=(0.68, 0.71, 0.76),
        sky_top=(0.50, 0.53, 0.57),
        sky_low=(0.62, 0.64, 0.67),
        visibility=90.0,
        haze=(0.60, 0.62, 0.65),
        wet=0.6,
        streaks=140,
        noise=0.05,
        depth_noise=0.04,
        depth_dropout=0.14,
        depth_speckle=0.04,
    ),
    "rain_night": Weather(
        light=(0.40, 0.41, 0.48),
        sky_top=(0.05, 0.06, 0.09),
        sky_low=(0.10, 0.11, 0.14),
        visibility=90.0,
        haze=(0.12, 0.13, 0.16),
        wet=0.6,
        streaks=100,
        night=True,
        noise=0.05,
        depth_noise=0.04,
        depth_dropout=0.14,
        depth_speckle=0.04,
    ),
    "soft_rain": Weather(
        light=(0.80, 0.82, 0.86),
        sky_top=(0.58, 0.61, 0.66),
        sky_low=(0.70, 0.72, 0.75),
        visibility=150.0,
        haze=(0.66, 0.68, 0.71),
        wet=0.3,
        streaks=50,
        noise=0.04,
        depth_noise=0.04,
        depth_dropout=0.07,
        depth_speckle=0.02,
    ),
}
"""Conditions that no network sees in training."""

WEATHER = {**TRAIN_WEATHER, **UNSEEN_WEATHER}


def field(rng: np.random.Generator, cell: int) -> Array:
    """Smooth random field of the size of the canvas, values about -1 ... 1, with bumps of `cell` pixels."""
    rows, columns = H // cell + 2, W // cell + 2
    grid = rng.uniform(-1, 1, (rows, columns))
    y, x = np.arange(H) / cell, np.arange(W) / cell
    i, j = y.astype(int), x.astype(int)
    fy, fx = (y - i)[:, None], (x - j)[None, :]
    top = grid[i][:, j] * (1 - fx) + grid[i][:, j + 1] * fx
    low = grid[i + 1][:, j] * (1 - fx) + grid[i + 1][:, j + 1] * fx
    return np.asarray(top * (1 - fy) + low * fy)


class Street:
    """The canvas of one scene: paints things where they are nearer than what is there."""

    def __init__(self, rng: np.random.Generator, weather: Weather):
        self.rng = rng
        self.weather = weather
        self.colour = np.zeros((H, W, 3))
        self.depth = np.full((H, W), FAR)
        self.label = np.full((H, W), SKY, np.uint8)
        self.bright = np.zeros((H, W))  # how far a pixel gives light of its own
        self.eye = rng.uniform(1.4, 1.9)
        self.horizon = H * rng.uniform(0.38, 0.50)
        self.middle = W * rng.uniform(0.38, 0.62)
        self.half_road = rng.uniform(3.2, 7.0)
        self.offset = rng.uniform(-0.6, 0.6) * self.half_road  # where the middle of the road lies, seen from the camera
        self.walk = rng.uniform(1.5, 3.5)
        self.rows = np.arange(H)[:, None] + 0.5
        self.columns = np.arange(W)[None, :] + 0.5

    def paint(self, area: Any, mask: Array, z: Array | float, colour: Colour, label: int, bright: float = 0.0) -> None:
        """Paint `mask` inside `area` (two slices) at depth `z`, where nothing nearer stands."""
        mask = mask & (z < self.depth[area])
        self.depth[area][mask] = np.broadcast_to(z, mask.shape)[mask]
        self.label[area][mask] = label
        self.bright[area][mask] = bright
        colour = np.asarray(colour, float)
        self.colour[area][mask] = colour if colour.ndim == 1 else colour[mask]

    def board(
        self, x: float, z: float, half: float, height: float, parts: Callable[[Array, Array], list[tuple[Any, ...]]]
    ) -> None:
        """Paint an upright flat thing that stands at (x, z); `parts(x, y)` gives masks in metres, front ones first."""
        size = FOCAL / z
        foot, centre = self.horizon + self.eye * size, self.middle + x * size
        top, left = max(0, int(foot - height * size)), max(0, int(centre - half * size))
        low, right = min(H, int(foot) + 1), min(W, int(centre + half * size) + 1)
        if top >= low or left >= right:
            return
        area = (slice(top, low), slice(left, right))
        u = (self.columns[:, left:right] - centre) / size + np.zeros((low - top, 1))
        v = (foot - self.rows[top:low]) / size + np.zeros((1, right - left))
        for i, (mask, colour, label, *bright) in enumerate(parts(u, v)):
            self.paint(area, mask & (v >= 0), z + 1e-3 * i, colour, label, *bright)

    def ground(self) -> None:
        """Road, lane markings, sidewalks, shadows."""
        rng, weather = self.rng, self.weather
        below = np.maximum(self.rows - self.horizon, 1e-3)
        whole = (slice(None), slice(None))
        grain = field(rng, 6) * 0.03 + field(rng, 20) * 0.03
        road_grey, walk_grey = rng.uniform(0.28, 0.46), rng.uniform(0.36, 0.62)
        warm = rng.uniform(-0.04, 0.06)
        z = FOCAL * self.eye / below + np.zeros((1, W))
        x = (self.columns - self.middle) * z / FOCAL - self.offset
        on_road = np.abs(x) < self.half_road
        road = np.stack([road_grey + grain] * 3, -1)
        self.paint(whole, on_road & (z < FAR), z, road, ROAD)

        faded = rng.uniform(0.1, 0.4)
        dash, phase = rng.uniform(5, 9), rng.uniform(0, 9)
        lanes = int(rng.integers(2, 5))
        marks = np.zeros_like(on_road)
        for i in range(1, lanes):
            line = np.abs(x - (2 * i / lanes - 1) * self.half_road) < 0.1
            marks |= line & (((z + phase) % dash) < dash * 0.5)
        if rng.random() < 0.6:
            marks |= np.abs(np.abs(x) - self.half_road + 0.35) < 0.08
        if rng.random() < 0.2:
            crossing = rng.uniform(8, 20)
            marks |= on_road & (np.abs(z - crossing) < 1.2) & ((x % 1.0) < 0.5)
        paint = np.stack([road_grey + faded + grain + rng.uniform(-0.1, 0.2) * field(rng, 10)] * 3, -1)
        near = marks & on_road & (z < 45)
        self.colour[near] = paint[near]
        self.label[near] = LANE

        z_road, x_road = z, x
        z = FOCAL * (self.eye - KERB) / below + np.zeros((1, W))
        x = (self.columns - self.middle) * z / FOCAL - self.offset
        walk = np.stack([walk_grey + warm + grain, walk_grey + grain, walk_grey - warm + grain], -1)
        kerb = np.abs(x_road) >= self.half_road  # its face, at the depth of the road; the top is painted over it
        self.paint(whole, kerb & (z_road < FAR), z_road, walk * 0.85, SIDEWALK)
        joint = (np.floor(z / 1.5) + np.floor(x / 1.0)) % 2
        walk = walk - 0.03 * joint[..., None] * (z < 15)[..., None]
        self.paint(whole, (np.abs(x) >= self.half_road) & (z < FAR), z, walk, SIDEWALK)

        side, reach = rng.choice([-1, 1]), rng.uniform(-1.0, 0.7) * self.half_road
        breaks = ((z + phase) % rng.uniform(15, 40)) > rng.uniform(0, 8)
        shade = (side * x > reach) & breaks & (z < FAR)
        self.colour[shade] *= 1 - weather.shadow
        if weather.snow:
            melt = (field(rng, 16) + field(rng, 5) * 0.6) * 0.5
            cover = np.clip(weather.snow + melt - 0.35 * (np.abs(np.abs(x) - 1.2) < 0.5), 0, 1)
            cover = np.where(self.label == SKY, 0, cover)[..., None]
            self.colour += cover * (np.array([0.88, 0.90, 0.94]) + 0.1 * grain[..., None] - self.colour)

    def walls(self) -> None:
        """Buildings along both sides, fences, and a skyline at the end of the street."""
        rng = self.rng
        for side in (-1.0, 1.0):
            edge = self.offset + side * (self.half_road + self.walk + rng.uniform(0, 4))
            z = rng.uniform(-8, 3)
            gap = True
            while z < 85:
                length = rng.uniform(8, 26)
                if rng.random() < 0.28:
                    if rng.random() < 0.5:
                        self.fence(edge, z, z + length, rng.uniform(1.0, 1.9))
                    gap = True
                else:
                    self.building(edge, side, z, z + length, gap)
                    gap = False
                z += length
            if rng.random() < 0.22:  # a fence between sidewalk and road
                start = rng.uniform(4, 25)
                self.fence(self.offset + side * (self.half_road + 0.2), start, start + rng.uniform(6, 30), 0.9)
        edges = np.cumsum(rng.uniform(5, 20, 40))
        tops = rng.uniform(2, 16, 41)[np.searchsorted(edges, np.arange(W))]
        trees = (rng.random(41) < 0.4)[np.searchsorted(edges, np.arange(W))]
        skyline = (self.rows > self.horizon - tops[None, :]) & (self.rows < self.horizon + 3)
        whole = (slice(None), slice(None))
        grey = rng.uniform(0.4, 0.6)
        self.paint(whole, skyline & ~trees[None, :], 92.0, (grey, grey, grey + 0.02), BUILDING)
        leaf = self.weather.leaves[0]
        self.paint(whole, skyline & trees[None, :] & (tops < 10)[None, :], 90.0, leaf, TREE)

    def wall(self, x: float, start: float, end: float) -> tuple[Any, Array, Array] | None:
        """Area, depth and height above ground of a wall at `x` that runs along the street."""
        end, start = min(end, 88.0), max(start, 0.8)
        if end <= start:
            return None
        bounds = sorted((self.middle + x * FOCAL / start, self.middle + x * FOCAL / end))
        left, right = max(0, int(np.ceil(bounds[0] - 0.5))), min(W, int(np.ceil(bounds[1] - 0.5)))
        if left >= right:
            return None
        z = x * FOCAL / (self.columns[:, left:right] - self.middle) + np.zeros((H, 1))
        up = self.eye - (self.rows - self.horizon) * z / FOCAL
        return (slice(None), slice(left, right)), z, up

    def building(self, x: float, side: float, start: float, end: float, gap: bool) -> None:
        """One building: a wall with windows, and its front when nothing stands before it."""
        rng, night = self.rng, self.weather.night
        height = rng.uniform(4, 22)
        base = np.array([rng.uniform(0.30, 0.75)] * 3) + rng.normal(0, 0.05, 3)
        if rng.random() < 0.3:
            base = base * np.array([1.1, 0.82, 0.70])  # brick
        glass = np.array([0.25, 0.30, 0.38]) + rng.uniform(-0.1, 0.35)
        step, storey = rng.uniform(1.8, 3.5), rng.uniform(2.6, 3.6)
        lit_row = rng.random((40, 80)) < (0.25 if night else 0.0)

        def texture(along: Array, up: Array, shade: float) -> tuple[Array, Array]:
            i, j = np.floor(up / storey).astype(int), np.floor(along / step).astype(int)
            window = ((up / storey) % 1 > 0.35) & ((up / storey) % 1 < 0.8)
            window &= ((along / step) % 1 > 0.25) & ((along / step) % 1 < 0.75)
            lit = window & lit_row[np.clip(i, 0, 39), np.clip(j, 0, 79)]
            speckle = rng.normal(0, 0.02, up.shape)[..., None]
            colour = np.where(window[..., None], glass, base) * shade + speckle
            return np.where(lit[..., None], np.array([0.95, 0.80, 0.5]), colour), lit

        seen = self.wall(x, start, end)
        if seen:
            area, z, up = seen
            mask = (up > 0) & (up < height)
            colour, lit = texture(z - start, up, 1.0 if side > 0 else 0.85)
            self.paint(area, mask & ~lit, z, colour, BUILDING)
            self.paint(area, mask & lit, z, colour, BUILDING, 0.8)
        if gap and 2 < start < 85:
            wide = rng.uniform(8, 15)

            def front(u: Array, v: Array) -> list[tuple[Any, ...]]:
                colour, lit = texture(u + wide, v, 0.92)
                mask = (np.abs(u) < wide / 2) & (v < height)
                return [(mask & lit, colour, BUILDING, 0.8), (mask & ~lit, colour, BUILDING)]

            self.board(x + side * wide / 2, start, wide / 2, height, front)

    def fence(self, x: float, start: float, end: float, height: float) -> None:
        """A low fence that runs along the street."""
        rng = self.rng
        base = np.array([(0.45, 0.36, 0.28), (0.5, 0.5, 0.5), (0.7, 0.7, 0.68), (0.25, 0.3, 0.26)][rng.integers(4)])
        pitch = rng.uniform(0.3, 0.8)
        seen = self.wall(x, start, end)
        if seen is None:
            return
        area, z, up = seen
        slats = (((z / pitch) % 1) < 0.35)[..., None]
        colour = np.where(slats, base * 0.65, base) + rng.normal(0, 0.03, up.shape)[..., None]
        self.paint(area, (up > 0) & (up < height), z - 0.05, colour, FENCE)

    def tree(self, x: float, z: float) -> None:
        """A trunk and a ragged crown."""
        rng, weather = self.rng, self.weather
        tall, wide = rng.uniform(4, 9), rng.uniform(1.2, 2.6)
        trunk = rng.uniform(0.12, 0.25)
        leaf = np.array(weather.leaves[rng.integers(len(weather.leaves))]) * rng.uniform(0.8, 1.2)
        seed = int(rng.integers(2**31))

        def parts(u: Array, v: Array) -> list[tuple[Any, ...]]:
            own = np.random.default_rng(seed)
            middle, half = tall * 0.65, tall * 0.36
            edge = (u / wide) ** 2 + ((v - middle) / half) ** 2 + own.normal(0, 0.12, u.shape)
            crown = (edge < 1) & (own.random(u.shape) < weather.leaf_cover)
            shade = 0.85 + 0.3 * (v - middle) / half * 0.5 + own.normal(0, 0.12, u.shape)
            colour = leaf * np.clip(shade, 0.4, 1.3)[..., None]
            stem = (np.abs(u) < trunk) & (v < middle)
            return [(crown, colour, TREE), (stem, (0.30, 0.24, 0.19), TREE)]

        self.board(x, z, wide * 1.15, tall * 1.1, parts)

    def car(self, x: float, z: float) -> None:
        """A car, seen from behind or (rarely) from the side."""
        rng = self.rng
        paints = [(0.75, 0.75, 0.76), (0.15, 0.15, 0.17), (0.4, 0.4, 0.42), (0.6, 0.15, 0.13), (0.18, 0.26, 0.5)]
        body = np.array(paints[rng.integers(5)]) + rng.normal(0, 0.05, 3)
        side = rng.random() < 0.15
        half, tall = (2.1, 1.45) if side else (0.9, rng.uniform(1.35, 1.9))

        def parts(u: Array, v: Array) -> list[tuple[Any, ...]]:
            a = np.abs(u)
            cabin = (a < half * (0.95 - 0.35 * np.clip((v - 0.55 * tall) / (0.45 * tall), 0, 1))) & (v < tall)
            shell = (v > 0.22) & cabin
            pane = (v > 0.58 * tall) & (v < 0.9 * tall) & (a < half * 0.7)
            wheel = (v < 0.45) & (np.abs(a - half * 0.7) < (0.35 if side else 0.14))
            lamp = (not side) & (np.abs(v - 0.5 * tall) < 0.09) & (np.abs(a - half * 0.8) < 0.14)
            return [
                (lamp, (0.85, 0.12, 0.1), CAR, 0.9),
                (wheel, (0.07, 0.07, 0.07), CAR),
                (pane, (0.22, 0.25, 0.3), CAR),
                (shell, body, CAR),
                ((a < half * 0.9) & (v <= 0.22) & (v > 0.05), (0.09, 0.09, 0.1), CAR),
            ]

        self.board(x, z, half, tall, parts)
        below = np.maximum(self.rows - self.horizon, 1e-3)  # the shadow that a car throws on the road
        gz = FOCAL * self.eye / below
        gx = (self.columns - self.middle) * gz / FOCAL
        dark = (np.abs(gx - x) < half) & (np.abs(gz - z) < 0.9) & np.isin(self.label, (ROAD, LANE))
        self.colour[dark] *= 0.6

    def person(self, x: float, z: float, cycling: bool) -> None:
        """A pedestrian, or somebody on a bicycle."""
        rng = self.rng
        tall = rng.uniform(1.5, 1.9)
        shirt, legs = rng.uniform(0.1, 0.75, 3), np.array([rng.uniform(0.1, 0.45)] * 3) + rng.normal(0, 0.04, 3)
        skin = np.array([0.75, 0.58, 0.48]) * rng.uniform(0.5, 1.1)
        label = CYCLIST if cycling else PEDESTRIAN
        lift = 0.25 if cycling else 0.0
        side = cycling and rng.random() < 0.5

        def parts(u: Array, v: Array) -> list[tuple[Any, ...]]:
            v = v - lift
            head = u**2 + (v - tall * 0.92) ** 2 < 0.13**2
            torso = (np.abs(u) < 0.25) & (v > tall * 0.47) & (v < tall * 0.85)
            leg = (np.abs(np.abs(u) - 0.11) < 0.09) & (v < tall * 0.5) & (v > (0.1 if cycling else -1))
            masks: list[tuple[Any, ...]] = [(head, skin, label), (torso, shirt, label), (leg, legs, label)]
            if side:
                wheel = np.abs(np.hypot(np.abs(u) - 0.55, v + lift - 0.33) - 0.28) < 0.07
                frame = (np.abs(u) < 0.55) & (np.abs(v + lift - 0.55) < 0.06)
                masks.append((wheel | frame, (0.12, 0.12, 0.13), label))
            elif cycling:
                masks.append(((np.abs(u) < 0.06) & (v + lift < 0.65), (0.12, 0.12, 0.13), label))
                masks.append(((np.abs(u) < 0.3) & (np.abs(v + lift - 0.95) < 0.05), (0.12, 0.12, 0.13), label))
            return masks

        self.board(x, z, 0.95 if side else 0.4, tall + lift + 0.2, parts)

    def post(self, x: float, z: float, head: str = "") -> None:
        """A pole: a bare one (a lamp post), one with a sign, or one with a traffic light."""
        rng = self.rng
        tall = rng.uniform(4.5, 7) if not head else rng.uniform(2.3, 3.3)
        grey = rng.uniform(0.08, 0.35)
        panel = [(0.85, 0.12, 0.10), (0.10, 0.28, 0.80), (0.85, 0.85, 0.82), (0.9, 0.75, 0.15)][rng.integers(4)]
        shine = [(0.95, 0.15, 0.1), (0.2, 0.9, 0.4), (0.95, 0.7, 0.15)][rng.integers(3)]
        height = [0.78, 0.22, 0.5][rng.integers(3)]
        round_sign, size = rng.random() < 0.5, rng.uniform(0.35, 0.55)

        def parts(u: Array, v: Array) -> list[tuple[Any, ...]]:
            masks: list[tuple[Any, ...]] = []
            if head == "sign":
                disc = np.hypot(u, v - tall) < size if round_sign else np.maximum(np.abs(u), np.abs(v - tall)) < size
                inner = disc & (np.maximum(np.abs(u), np.abs(v - tall)) < size * 0.45)
                masks += [(inner, (0.8, 0.8, 0.78), SIGN), (disc, panel, SIGN)]
            if head == "light":
                box = (np.abs(u) < 0.25) & (np.abs(v - tall) < 0.55)
                lamp = np.hypot(u, v - tall + 0.55 - 1.1 * height) < 0.18
                masks += [(lamp, shine, LIGHT, 1.0), (box, (0.12, 0.12, 0.11), LIGHT)]
            masks.append(((np.abs(u) < 0.09) & (v < tall), (grey, grey, grey), POLE))
            if not head:
                masks.append(((np.abs(u) < 0.6) & (np.abs(v - tall) < 0.1), (grey, grey, grey), POLE))
            return masks

        self.board(x, z, 0.65, tall + 0.6, parts)

    def animal(self, x: float, z: float) -> None:
        """A dog or the like: a low body on four legs."""
        rng = self.rng
        long = rng.uniform(0.4, 0.65)
        coat = np.array([(0.35, 0.25, 0.17), (0.12, 0.11, 0.11), (0.65, 0.6, 0.52)][rng.integers(3)])
        way = rng.choice([-1.0, 1.0])

        def parts(u: Array, v: Array) -> list[tuple[Any, ...]]:
            u = u * way
            body = (u / long) ** 2 + ((v - 0.5) / 0.2) ** 2 < 1
            head = (u - long) ** 2 + (v - 0.68) ** 2 < 0.15**2
            leg = (np.abs(np.abs(u) - long * 0.7) < 0.07) & (v < 0.5)
            return [(body | head | leg, coat, ANIMAL)]

        self.board(x, z, long + 0.3, 0.9, parts)

    def things(self) -> None:
        """Everything that stands in the street."""
        rng = self.rng
        half, walk = self.half_road, self.walk

        def distance(low: float, high: float) -> float:
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))

        def on_walk() -> float:
            return float(self.offset + rng.choice([-1, 1]) * (half + rng.uniform(0.2, 1.0) * walk))

        for _ in range(rng.poisson(3.0)):
            self.tree(on_walk(), distance(7, 60))
        for _ in range(rng.poisson(2.8)):
            parked = rng.random() < 0.5
            place = rng.choice([-1, 1]) * (half - 1.1) if parked else rng.uniform(-half + 1, half - 1)
            self.car(self.offset + place, distance(5.5, 60))
        for _ in range(rng.poisson(2.0)):
            self.post(on_walk(), distance(5, 45))
        for _ in range(rng.poisson(0.9)):
            crossing = rng.random() < 0.15
            self.person(
                self.offset + rng.uniform(-half, half) if crossing else on_walk(), distance(5, 32), cycling=False
            )
        for _ in range(rng.poisson(0.7)):
            self.post(on_walk(), distance(5, 30), "sign")
        for _ in range(rng.poisson(0.16)):
            self.person(self.offset + rng.uniform(-half, half), distance(5.5, 28), cycling=True)
        for _ in range(rng.poisson(0.15)):
            self.post(on_walk(), distance(6, 26), "light")
        for _ in range(rng.poisson(0.08)):
            self.animal(self.offset + rng.uniform(-1, 1) * (half + walk), distance(5, 15))


def see(street: Street, rng: np.random.Generator) -> Array:
    """What the camera records: sky, light, haze, rain, blur and noise."""
    weather, depth = street.weather, street.depth
    up = np.clip(1 - street.rows / street.horizon, 0, 1)[..., None]
    sky = np.array(weather.sky_low) + up * (np.array(weather.sky_top) - np.array(weather.sky_low))
    sky = sky + weather.clouds * np.maximum(field(rng, 24) + 0.5 * field(rng, 9), 0)[..., None]
    colour = street.colour.copy()
    if weather.wet:  # a wet road mirrors what stands above the horizon
        mirror = np.clip((2 * street.horizon - np.arange(H)).astype(int) + rng.integers(-2, 3, H), 0, H - 1)
        flipped = np.where((street.label == SKY)[..., None], sky, colour)[mirror]
        puddles = np.clip(weather.wet + 0.4 * field(rng, 14), 0, 0.85)
        flat = np.isin(street.label, (ROAD, LANE, SIDEWALK))
        colour = np.where(flat[..., None], colour * 0.7, colour)
        colour += (flat * puddles)[..., None] * 0.7 * (flipped - colour)
    light = np.array(weather.light) * rng.uniform(0.85, 1.15) * (1 + 0.06 * field(rng, 48))[..., None]
    if weather.night:  # street lamps: pools of light
        light = light * (1 + 0.8 * np.clip(field(rng, 22), 0, 1))[..., None]
    glow = street.bright[..., None] * (0.9 if weather.night else 0.4)
    lit = colour * light * (1 - glow) + colour * glow
    lit = np.where((street.label == SKY)[..., None], sky * rng.uniform(0.92, 1.05), lit)
    clear = np.exp(-depth / weather.visibility)[..., None]
    clear = np.where((street.label == SKY)[..., None], 1.0, clear)
    lit = lit * clear + np.array(weather.haze) * (1 - clear)
    for _ in range(weather.streaks):
        y, x, long = rng.integers(0, H), rng.integers(0, W), rng.integers(5, 16)
        rows = np.arange(y, min(H, y + long))
        columns = np.clip(x + (rows - y) // 5, 0, W - 1)
        lit[rows, columns] += 0.10 if weather.night else 0.16
    small = lit.reshape(HEIGHT, SCALE, WIDTH, SCALE, 3).mean((1, 3))
    soft = np.pad(small, ((1, 1), (1, 1), (0, 0)), "edge")
    soft = 0.1 * soft[:-2] + 0.8 * soft[1:-1] + 0.1 * soft[2:]
    soft = 0.1 * soft[:, :-2] + 0.8 * soft[:, 1:-1] + 0.1 * soft[:, 2:]
    soft = soft + rng.normal(0, weather.noise, soft.shape)
    return np.asarray((np.clip(soft, 0, 1) * 255).round().astype(np.uint8))


def measure(street: Street, rng: np.random.Generator, weather: Weather) -> Array:
    """What the range sensor records in a weather: noise, lost signals (they read as FAR) and false near ones."""
    z = street.depth[::SCALE, ::SCALE]
    noisy = z * (1 + rng.normal(0, weather.depth_noise, z.shape))
    lost = rng.random(z.shape) < 1 - (1 - weather.depth_dropout) * np.exp(-((z / weather.depth_range) ** 2))
    noisy = np.where(lost | (z >= FAR), FAR, noisy)
    false = rng.random(z.shape) < weather.depth_speckle
    noisy = np.where(false, rng.uniform(0.05, 0.9, z.shape) * noisy, noisy)
    return np.clip(noisy, 0.5, FAR).astype(np.float32)


def render(
    seed: int, condition: str, clean_depth: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Draw one scene.

    Parameters
    ----------
    seed : int
        Decides the scene: the same seed gives the same street under every condition.
    condition : str
        A key of `WEATHER`.
    clean_depth : bool
        The range sensor sees no weather, as a rendered depth image: it is as good as in the training conditions.

    Returns
    -------
    rgb : (64, 96, 3) uint8
    depth : (64, 96) float32
        Metres; 100 where nothing comes back.
    label : (64, 96) uint8
        Index into `CLASS_NAMES`.
    """
    street = Street(np.random.default_rng([seed, 0]), WEATHER[condition])
    street.ground()
    street.walls()
    street.things()
    place = list(WEATHER).index(condition)
    rgb = see(street, np.random.default_rng([seed, 1, place]))
    depth = measure(street, np.random.default_rng([seed, 2, place]), Weather() if clean_depth else WEATHER[condition])
    return rgb, depth, street.label[::SCALE, ::SCALE].copy()
