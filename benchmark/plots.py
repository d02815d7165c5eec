"""The figures as Vega-Lite specifications: the HTML page draws them live, and PNG and SVG are made of the same text.

A point is a row with the fields that its layers name, and `algorithm`, as the legend calls it.
"""

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
import vl_convert

from .pool import write_atomically

# Okabe and Ito 2008, which the colour-blind can tell apart. A script and its peer share a hue, in every report; one
# that is not named here gets a free one in each.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#7F7F7F"]
HUES = {
    "ppo": 0, "ppo_continuous": 0, "trpo": 1, "trpo_continuous": 1, "a2c": 2, "reinforce_baseline": 3, "reinforce": 4,
    "sac": 5, "a3c": 6, "grpo": 0, "rloo": 1, "ppo_rlhf": 2, "dpo": 3, "reinforce_lm": 4,
}  # fmt: skip
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3], [12, 3], [4, 1, 1, 1, 1, 1]]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
TICKS = [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999]  # logit scale
PANELS = 7  # algorithms that one plot shows; more have one each
CONFIG = {
    "font": "Liberation Sans, Arial, sans-serif", "view": {"stroke": None},
    "axis": {"gridOpacity": 0.5, "labelLimit": 0},
    "legend": {"orient": "bottom", "title": None, "labelLimit": 0, "symbolStrokeWidth": 2, "symbolSize": 300,
               "symbolOpacity": 1},
    "title": {"anchor": "start", "fontSize": 13}, "range": {"category": COLOURS},
}  # fmt: skip


def styles(names: Iterable[str], scripts: dict[str, str] | None = None) -> dict[str, dict]:
    """A colour for each algorithm, its script's, and a dash pattern and a shape that tell it from others of the script.

    `scripts` names the scripts of those that are not called by it; a peer, sb3-NAME, has NAME's colour.
    """
    families: dict[str, list[str]] = {}
    for name in sorted(names):
        base = name.removeprefix("sb3-").partition(" ")[0]
        families.setdefault(base if base in HUES else (scripts or {}).get(name, base), []).append(name)
    free = [i for i in range(len(COLOURS)) if i not in {HUES[family] for family in families if family in HUES}]
    found = {}
    for family, members in families.items():
        colour = HUES[family] if family in HUES else free.pop(0) if free else crc32(family.encode()) % len(COLOURS)
        for i, name in enumerate(sorted(members, key=lambda name: (name != family, name))):
            found[name] = {
                "colour": COLOURS[colour], "dash": DASHES[i % len(DASHES)], "shape": SHAPES[i % len(SHAPES)],
            }  # fmt: skip
    return found


def save(spec: dict, stem: Path) -> None:
    """Write stem.svg and stem.png; the same figure gives the same bytes on any day, and no new PNG: on a machine with
    other fonts its pixels would be others."""
    text = json.dumps(spec)
    svg = vl_convert.vegalite_to_svg(text)
    first = min(map(int, re.findall(r'"clip(\d+)"', svg)), default=0)  # Vega counts on from figure to figure
    svg = re.sub(r'(?<=["#])clip(\d+)', lambda match: f"clip{int(match[1]) - first}", svg).encode()
    vectors, pixels = (stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png"))
    if not (vectors.exists() and pixels.exists() and vectors.read_bytes() == svg):
        write_atomically(pixels, squeeze(vl_convert.vegalite_to_png(text, scale=2)))
        write_atomically(vectors, svg)


def squeeze(png: bytes) -> bytes:
    """The same picture in a quarter of the bytes: its data packed as tightly as zlib can."""
    chunks, position = [], 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        chunks.append((png[position + 4 : position + 8], png[position + 8 : position + 8 + length]))
        position += 12 + length
    packed = zlib.compress(zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT")), 9)
    kept = [chunks[0], (b"IDAT", packed), (b"IEND", b"")]
    return png[:8] + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", crc32(k + d)) for k, d in kept)


def number(value: float) -> float | None:
    """A number as JSON has it: none that is not finite, and five digits."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def top(title: str, **parts: object) -> dict:
    """A specification with what all of them share."""
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "title": title, "config": CONFIG} | parts


def axis(name: str, title: str | None, **more: object) -> dict:
    """A quantitative channel that need not show zero."""
    scale = {"zero": False} | more.pop("scale", {})
    return {"field": name, "type": "quantitative", "title": title, "scale": scale} | more


def layer(kind: str, encoding: dict, rest: dict | None = None, **mark: object) -> dict:
    """Marks of one kind, cut off where the axes end."""
    return {"mark": {"type": kind, "clip": True} | mark, "encoding": encoding} | (rest or {})


def tips(names: str, x: str = "", y: str = "") -> list[dict]:
    """What shows at the pointer; x and y under the names of their axes."""
    words, form = ("algorithm", "measure"), {"type": "quantitative", "format": ",.4~r"}
    titles = {"x": x, "y": y}
    return [{"field": n, "title": titles.get(n, n)} | (form if n not in words else {}) for n in names.split()]


def looks(style: dict[str, dict], labels: dict[str, str], kind: str = "dash") -> dict:
    """The channels that tell algorithms apart, by the legend below the plot in as many columns as fit."""
    longest = max(map(len, labels.values()))
    legend = {"symbolType": "stroke"} if kind == "dash" else {"symbolSize": 60}
    legend |= {"columns": min(len(labels), 4 if longest < 12 else 3 if longest < 18 else 2 if longest < 30 else 1)}
    channel = {"dash": "strokeDash", "shape": "shape"}[kind]
    return {
        name: {"field": "algorithm", "type": "nominal", "legend": legend,
               "scale": {"domain": list(labels.values()), "range": [style[name][key] for name in labels]}}
        for name, key in (("color", "colour"), (channel, kind))
    }  # fmt: skip


def plot_bands(
    lines: dict[str, tuple], style: dict[str, dict], title: str, x_label: str, y_label: str,
    labels: dict[str, str] | None = None, level: float | None = None, limits: tuple[float, float] | None = None,
) -> dict:  # fmt: skip
    """Lines with bands: lines[name] = (x, y, low, high), each (points,), NaN where there is nothing to show. Many lines
    have a panel each, with the others behind it in grey.

    `level` is marked by a thin horizontal line: the environment's threshold. What lies beyond `limits` is cut off. A
    click on the legend dims the others, another one brings them back.
    """
    labels = labels or {name: name for name in lines}
    rows = [
        {"algorithm": labels[name]} | dict(zip(("x", "y", "low", "high"), map(number, point), strict=True))
        for name, line in lines.items()
        for point in zip(*line, strict=True)
    ]
    ends = {"domain": [number(x) for x in limits], "nice": False} if limits else {}
    x, y = axis("x", x_label, axis={"format": "~s"}), axis("y", y_label, scale=ends)
    both, many = {"x": x, "y": y}, len(lines) > PANELS
    draw = {} if many else looks(style, labels)
    edges = {"x": x, "y": axis("low", y_label, scale=ends), "y2": {"field": "high"}}
    edges |= {name: channel for name, channel in draw.items() if name == "color"}
    layers = [layer("area", edges, opacity=0.18), layer("line", both | draw, strokeWidth=1.8),
              layer("point", both | {"tooltip": tips("algorithm x y low high", x_label, y_label)}, opacity=0,
                    size=120)]  # fmt: skip
    at = {"data": {"values": [{"level": level}]}}
    rules = [] if level is None else [
        layer("rule", {"y": axis("level", y_label)}, at, color="#666", size=0.8),
        layer("text", {"y": axis("level", y_label), "x": {"value": 3}}, at, text=f"threshold {level:g}", align="left",
              dy=-5, color="#555"),
    ]  # fmt: skip
    if not many:
        toggle = {
            "name": "toggle",
            "select": {"type": "point", "fields": ["algorithm"], "toggle": "true"},
            "bind": "legend",
        }
        dim = {"condition": {"param": "toggle", "value": 1}, "value": 0.15}
        layers[1] = layer("line", both | draw | {"opacity": dim}, {"params": [toggle]}, strokeWidth=1.8)
        return top(title, data={"values": rows}, width=400, height=240, layer=[*layers, *rules])
    behind, panels = layer("line", both | {"detail": {"field": "algorithm"}}, strokeWidth=0.7, color="#ccc"), []
    for name, label in labels.items():
        own = {"transform": [{"filter": {"field": "algorithm", "equal": label}}]}
        mine = [one | own | {"mark": one["mark"] | {"color": style[name]["colour"]}} for one in layers]
        panels.append({"title": {"text": label, "fontSize": 11}, "width": 180, "height": 110,
                       "layer": [behind, *mine, *rules[:1]]})  # fmt: skip
    return top(title, data={"values": rows}, columns=3, concat=panels)


def plot_intervals(panels: dict[str, dict[str, tuple]], style: dict[str, dict], title: str, x_label: str) -> dict:
    """Estimates with intervals side by side: panels[measure][algorithm] = (estimate, low, high)."""
    rows = [
        {"measure": measure, "algorithm": name} | dict(zip(("mid", "low", "high"), map(number, x), strict=True))
        for measure, several in panels.items()
        for name, x in several.items()
    ]
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    base = {
        "y": {"field": "algorithm", "type": "nominal", "title": None, "sort": names},
        "color": looks(style, {name: name for name in names})["color"] | {"legend": None},
        "tooltip": tips("algorithm measure mid low high"),
    }
    bar = layer("rule", base | {"x": axis("low", x_label), "x2": {"field": "high"}}, strokeWidth=8, opacity=0.35)
    dot = layer("tick", base | {"x": axis("mid", x_label)}, thickness=2.5, size=12)
    facet = {"column": {"field": "measure", "type": "nominal", "title": None, "sort": list(panels)}}
    inner = {"width": 220, "height": {"step": 18}, "layer": [bar, dot]}
    return top(title, data={"values": rows}, facet=facet, spec=inner, resolve={"scale": {"x": "independent"}})


def logit(x: float) -> float:
    """log(x / (1 - x)), x moved to where the ticks end."""
    x = min(max(x, TICKS[0]), TICKS[-1])
    return math.log(x / (1 - x))


def plot_frontier(
    points: dict[str, list], joined: list[list[str]], curve: tuple[np.ndarray, np.ndarray], labels: dict[str, str],
    style: dict[str, dict], title: str, x_label: str, y_label: str,
) -> dict:  # fmt: skip
    """Points with bars both ways beside a curve, y on a logit scale, x on a log scale from 1 on if it goes beyond 2:
    points[name] = [x, y], each (estimate, low, high), the ends NaN where they are unknown. Thin lines, straight without
    the scales, join some."""
    rows = []
    for name, (x, y) in points.items():
        values = [*map(number, x), *(number(logit(v)) if math.isfinite(v) else None for v in y), number(y[0])]
        rows.append(
            {"algorithm": labels[name]}
            | dict(zip(("x", "left", "right", "y", "low", "high", "success"), values, strict=True))
        )
    paths = [{"line": "optimum", "x": number(x), "y": number(logit(y))} for x, y in zip(*curve, strict=True)]
    for names in joined:
        (xs, ys), places = np.array([[points[name][i][0] for name in names] for i in (0, 1)]), np.arange(len(names))
        for at in np.linspace(0, len(names) - 1, 60):
            x, y = float(np.interp(at, places, xs)), float(np.interp(at, places, ys))
            paths.append({"line": names[0], "x": number(x), "y": number(logit(y)), "colour": style[names[0]]["colour"]})
    far = max(row["x"] for row in rows) > 2
    ends = [min(paths[0]["y"], *(row["y"] for row in rows)) - 0.3, max(row["y"] for row in rows) + 0.3]
    marks = {"values": [logit(t) for t in TICKS], "labelExpr": "format(1 / (1 + exp(-datum.value)), '.3~r')"}
    x = axis("x", x_label, scale={"type": "symlog"} if far else {})
    if far:
        x["axis"] = {"values": [0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200]}
    y = axis("y", y_label, scale={"domain": ends, "nice": False}, axis=marks)
    both, colours = {"x": x, "y": y}, looks(style, labels, "shape")
    grey = {"condition": {"test": "datum.line == 'optimum'", "value": "#666"}, "field": "colour", "scale": None,
            "legend": None}  # fmt: skip
    lines = both | {"detail": {"field": "line"}, "stroke": grey, "order": {"field": "order"}}
    bars = both | {"color": colours["color"]}
    layers = [
        layer("line", lines, {"data": {"values": [row | {"order": i} for i, row in enumerate(paths)]}}, strokeWidth=1),
        layer("rule", bars | {"x": x | {"field": "left"}, "x2": {"field": "right"}}),
        layer("rule", bars | {"y": y | {"field": "low"}, "y2": {"field": "high"}}),
        layer(
            "point", both | colours | {"tooltip": tips("algorithm x success", x_label)}, filled=True, size=55, opacity=1
        ),
    ]
    return top(title, data={"values": rows}, width=400, height=260, layer=layers)
