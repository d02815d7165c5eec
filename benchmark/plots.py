"""The figures as Vega-Lite specifications: the HTML page draws them live, and PNG files are
made of the same text.

A point is a row with the fields that its layers name, and `algorithm`, as the legend calls it.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
import vl_convert

from .files import write_atomically

# Okabe and Ito 2008, which the colour-blind can tell apart. A script and its peer share a hue,
# in every report; one that is not named here gets a free one in each.
COLOURS = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31",
    "#7F7F7F",
]  # fmt: skip
HUES = {
    "ppo": 0, "ppo_continuous": 0, "trpo": 1, "trpo_continuous": 1, "a2c": 2,
    "reinforce_baseline": 3, "reinforce": 4, "sac": 5, "a3c": 6,
    "grpo": 0, "rloo": 1, "ppo_rlhf": 2, "dpo": 3, "reinforce_lm": 4,
}  # fmt: skip
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3], [12, 3], [4, 1, 1, 1, 1, 1]]
SHAPES = [
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right",
    "triangle-left",
]  # fmt: skip
TICKS = [  # of a logit scale
    0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999,
]  # fmt: skip
WIDTHS = {12: 4, 18: 3, 30: 2}  # legend labels shorter than this -> in so many columns, or one
PANELS = 7  # algorithms that one plot shows; more have one each
CONFIG = {
    "font": "Liberation Sans, Arial, sans-serif", "view": {"stroke": None},
    "axis": {"gridOpacity": 0.5, "labelLimit": 0},
    "legend": {
        "orient": "bottom", "title": None, "labelLimit": 0, "symbolStrokeWidth": 2,
        "symbolSize": 300, "symbolOpacity": 1,
    },
    "title": {"anchor": "start", "fontSize": 13}, "range": {"category": COLOURS},
}  # fmt: skip


def styles(names: Iterable[str], scripts: dict[str, str] | None = None) -> dict[str, dict]:
    """A colour for each algorithm, its script's, and a dash pattern and a shape that tell it
    from others of the script.

    `scripts` names the scripts of those that are not called by it; a peer, sb3-NAME, has NAME's
    colour.
    """
    families: dict[str, list[str]] = {}
    for name in sorted(names):
        family = name.removeprefix("sb3-").partition(" ")[0]
        if family not in HUES:
            family = (scripts or {}).get(name, family)
        families.setdefault(family, []).append(name)
    taken, found = {HUES.get(family) for family in families}, {}
    free = [i for i in range(len(COLOURS)) if i not in taken]
    for family, members in families.items():
        hue = HUES.get(family)
        if hue is None:
            hue = free.pop(0) if free else crc32(family.encode()) % len(COLOURS)
        for i, name in enumerate(sorted(members, key=lambda name: (name != family, name))):
            dash, shape = DASHES[i % len(DASHES)], SHAPES[i % len(SHAPES)]
            found[name] = {"colour": COLOURS[hue], "dash": dash, "shape": shape}
    return found


def save(spec: dict, stem: Path) -> None:
    """Write stem.png."""
    png = vl_convert.vegalite_to_png(json.dumps(spec), scale=2)
    write_atomically(stem.with_name(f"{stem.name}.png"), squeeze(png))


def squeeze(png: bytes) -> bytes:
    """The same picture in a quarter of the bytes: its data packed as tightly as zlib can."""
    chunks, position = [], 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        start = position + 8
        chunks.append((png[position + 4 : start], png[start : start + length]))
        position += 12 + length
    pixels = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    parts = [png[:8]]
    for kind, data in (chunks[0], (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")):
        checksum = struct.pack(">I", crc32(kind + data))
        parts += [struct.pack(">I", len(data)), kind, data, checksum]
    return b"".join(parts)


def number(value: float) -> float | None:
    """A number as JSON has it: none that is not finite, and five digits."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def top(title: str, **parts: object) -> dict:
    """A specification with what all of them share."""
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, "title": title, "config": CONFIG} | parts


def row(names: str, values: Iterable[float], **about: str) -> dict:
    """A row of data: words, and numbers as JSON has them."""
    return about | dict(zip(names.split(), map(number, values), strict=True))


def axis(name: str, title: str | None, **more: object) -> dict:
    """A quantitative channel that need not show zero."""
    scale = {"zero": False} | more.pop("scale", {})
    return {"field": name, "type": "quantitative", "title": title, "scale": scale} | more


def layer(kind: str, encoding: dict, rest: dict | None = None, **mark: object) -> dict:
    """Marks of one kind, cut off where the axes end."""
    return {"mark": {"type": kind, "clip": True} | mark, "encoding": encoding} | (rest or {})


def tips(names: str, x: str = "", y: str = "") -> list[dict]:
    """What shows at the pointer; x and y under the names of their axes."""
    found = []
    for name in names.split():
        found.append({"field": name, "title": {"x": x, "y": y}.get(name, name)})
        if name not in ("algorithm", "measure"):
            found[-1] |= {"type": "quantitative", "format": ",.4~r"}
    return found


def looks(style: dict[str, dict], names: Iterable[str], kind: str = "dash") -> dict:
    """The channels that tell algorithms apart, by the legend below the plot in as many columns
    as fit."""
    names = list(names)
    longest = max(map(len, names))
    columns = next((n for width, n in WIDTHS.items() if longest < width), 1)
    legend = {"symbolType": "stroke"} if kind == "dash" else {"symbolSize": 60}
    legend |= {"columns": min(len(names), columns)}
    found = {}
    for channel, key in (("color", "colour"), ({"dash": "strokeDash"}.get(kind, kind), kind)):
        scale = {"domain": names, "range": [style[name][key] for name in names]}
        field = {"field": "algorithm", "type": "nominal", "legend": legend, "scale": scale}
        found[channel] = field
    return found


def threshold_layers(
    level: float | None, y_label: str, limits: tuple[float, float] | None
) -> list[dict]:
    """A thin horizontal line with its name, if there is a level: above it, or below where the
    axis ends too soon."""
    if level is None:
        return []
    data, y = {"data": {"values": [{"level": level}]}}, axis("level", y_label)
    near = limits and limits[1] - level < 0.06 * (limits[1] - limits[0])
    text = {"text": f"threshold {level:g}", "align": "left", "color": "#555"}
    text["dy"] = 8 if near else -5
    line = layer("rule", {"y": y}, data, color="#666", size=0.8)
    return [line, layer("text", {"y": y, "x": {"value": 3}}, data, **text)]


def plot_bands(
    lines: dict[str, tuple],
    style: dict[str, dict],
    title: str,
    x_label: str,
    y_label: str,
    level: float | None = None,
    limits: tuple[float, float] | None = None,
) -> dict:
    """Lines with bands: lines[name] = (x, y, low, high), each (points,), NaN where there is
    nothing to show. Many lines have a panel each, with the others behind it in grey.

    `level` is marked by a thin horizontal line: the environment's threshold. What lies beyond
    `limits` is cut off. A click on the legend dims the others, another one brings them back.
    """
    rows = [
        row("x y low high", point, algorithm=name)
        for name, line in lines.items()
        for point in zip(*line, strict=True)
    ]
    ends = {"domain": [number(x) for x in limits], "nice": False} if limits else {}
    x, y = axis("x", x_label, axis={"format": "~s"}), axis("y", y_label, scale=ends)
    both, many = {"x": x, "y": y}, len(lines) > PANELS
    draw = {} if many else looks(style, lines)
    edges = {"x": x, "y": axis("low", y_label, scale=ends), "y2": {"field": "high"}}
    edges |= {name: channel for name, channel in draw.items() if name == "color"}
    at = both | {"tooltip": tips("algorithm x y low high", x_label, y_label)}
    layers = [
        layer("area", edges, opacity=0.18),
        layer("line", both | draw, strokeWidth=1.8),
        layer("point", at, opacity=0, size=120),
    ]
    rules = threshold_layers(level, y_label, limits)
    if many:
        panels = [panel(name, style[name]["colour"], layers, both, rules) for name in lines]
        return top(title, data={"values": rows}, columns=3, concat=panels)
    select = {"type": "point", "fields": ["algorithm"], "toggle": "true"}
    toggle = {"params": [{"name": "toggle", "select": select, "bind": "legend"}]}
    dim = {"opacity": {"condition": {"param": "toggle", "value": 1}, "value": 0.15}}
    layers[1] = layer("line", both | draw | dim, toggle, strokeWidth=1.8)
    return top(title, data={"values": rows}, width=400, height=240, layer=[*layers, *rules])


def panel(label: str, colour: str, layers: list[dict], both: dict, rules: list[dict]) -> dict:
    """One algorithm's line in its colour, the others' behind it in grey."""
    own = {"transform": [{"filter": {"field": "algorithm", "equal": label}}]}
    grey = both | {"detail": {"field": "algorithm"}}
    behind = layer("line", grey, strokeWidth=0.7, color="#ccc")
    mine = [drawn | own | {"mark": drawn["mark"] | {"color": colour}} for drawn in layers]
    title = {"text": label, "fontSize": 11}
    return {
        "title": title, "width": 180, "height": 110, "layer": [behind, *mine, *rules[:1]],
    }  # fmt: skip


def plot_intervals(
    panels: dict[str, dict[str, tuple]], style: dict[str, dict], title: str, x_label: str
) -> dict:
    """Estimates with intervals side by side: panels[measure][algorithm] = (estimate, low,
    high)."""
    rows = [
        row("mid low high", values, measure=measure, algorithm=name)
        for measure, several in panels.items()
        for name, values in several.items()
    ]
    names = list(dict.fromkeys(entry["algorithm"] for entry in rows))
    base = {
        "y": {"field": "algorithm", "type": "nominal", "title": None, "sort": names},
        "color": looks(style, names)["color"] | {"legend": None},
        "tooltip": tips("algorithm measure mid low high"),
    }
    ends = base | {"x": axis("low", x_label), "x2": {"field": "high"}}
    bar = layer("rule", ends, strokeWidth=8, opacity=0.35)
    dot = layer("tick", base | {"x": axis("mid", x_label)}, thickness=2.5, size=12)
    column = {"field": "measure", "type": "nominal", "title": None, "sort": list(panels)}
    return top(
        title, data={"values": rows}, facet={"column": column},
        spec={"width": 220, "height": {"step": 18}, "layer": [bar, dot]},
        resolve={"scale": {"x": "independent"}},
    )  # fmt: skip


def logit(x: float) -> float:
    """log(x / (1 - x)), x moved to where the ticks end."""
    x = min(max(x, TICKS[0]), TICKS[-1])
    return math.log(x / (1 - x))


def frontier_row(label: str, x: tuple, y: tuple) -> dict:
    """A point of the frontier with the ends of its bars, NaN where they are unknown."""
    ends = (logit(value) if math.isfinite(value) else value for value in y)
    names = "x left right y low high success"
    return row(names, (*x, *ends, y[0]), algorithm=label)


def plot_frontier(
    points: dict[str, list],
    curve: tuple[np.ndarray, np.ndarray],
    style: dict[str, dict],
    title: str,
    x_label: str,
    y_label: str,
) -> dict:
    """Points with bars both ways beside a curve, y on a logit scale, x on a log scale from 1 on
    if it goes beyond 2: points[name] = [x, y], each (estimate, low, high), the ends NaN where
    they are unknown."""
    rows = [frontier_row(name, x, y) for name, (x, y) in points.items()]
    path = [row("x y", (x, logit(y))) for x, y in zip(*curve, strict=True)]
    heights = [path[0]["y"], *(point["y"] for point in rows)]
    ends = [min(heights) - 0.3, max(heights[1:]) + 0.3]
    expression = "format(1 / (1 + exp(-datum.value)), '.3~r')"
    marks = {"values": [logit(tick) for tick in TICKS], "labelExpr": expression}
    x = axis("x", x_label)
    if max(point["x"] for point in rows) > 2:
        x = axis("x", x_label, scale={"type": "symlog"})
        x["axis"] = {"values": [0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200]}
    y = axis("y", y_label, scale={"domain": ends, "nice": False}, axis=marks)
    both, draw = {"x": x, "y": y}, looks(style, points, "shape")
    bars = both | {"color": draw["color"]}
    at = both | draw | {"tooltip": tips("algorithm x success", x_label)}
    layers = [
        layer("line", both, {"data": {"values": path}}, strokeWidth=1, color="#666"),
        layer("rule", bars | {"x": x | {"field": "left"}, "x2": {"field": "right"}}),
        layer("rule", bars | {"y": y | {"field": "low"}, "y2": {"field": "high"}}),
        layer("point", at, filled=True, size=55, opacity=1),
    ]
    return top(title, data={"values": rows}, width=400, height=260, layer=layers)


def plot_flags(panels: dict[str, list[tuple]], title: str) -> dict:
    """Small multiples, one a flag: panels[flag] = [(value, estimate, low, high, whether it is
    the default)], by value on a log axis, all with the same vertical axis."""
    ends = [x for points in panels.values() for point in points for x in point[1:4]]
    domain = {"domain": [number(f(x for x in ends if math.isfinite(x))) for f in (min, max)]}
    parts = []
    for flag, points in panels.items():
        rows = [row("x y low high", point[:4]) for point in points]
        ticks = {"values": [number(point[0]) for point in points], "labelOverlap": True}
        x = axis("x", None, scale={"type": "log", "nice": False, "padding": 8}, axis=ticks)
        y = axis("y", None, scale=domain)
        both = {"x": x, "y": y}
        default = {"data": {"values": [row("x", point[:1]) for point in points if point[4]]}}
        layers = [
            layer("rule", {"x": x}, default, color="#999", strokeDash=[3, 3]),
            layer("rule", both | {"y": y | {"field": "low"}, "y2": {"field": "high"}}),
            layer("line", both, color=COLOURS[0], strokeWidth=1.5),
            layer("point", both | {"tooltip": tips("x y low high", flag)}, filled=True),
        ]
        head = {"text": flag, "fontSize": 11}
        parts.append(
            {
                "title": head,
                "width": 150,
                "height": 90,
                "layer": layers,
                "data": {"values": rows},
            }
        )
    return top(title, columns=4, concat=parts)
