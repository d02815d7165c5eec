"""The figures, as PNG and SVG: colours that the colour-blind can tell apart, and a dash pattern for each of them."""

import io
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, NullLocator, ScalarFormatter
from scipy.special import expit, logit

from .pool import write_atomically

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2)), (0, (3, 3, 1, 3)))
MARKERS = "os^vDPX*<>d"
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995,
         0.998, 0.999)  # fmt: skip
NATS = (0, 0.2, 0.4, 0.6, 0.8, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # ticks where a divergence goes beyond 2
STYLE = {
    "figure.figsize": (5.2, 3.7), "figure.constrained_layout.use": True, "font.size": 9, "axes.grid": True,
    "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "lines.linewidth": 1.6, "svg.hashsalt": "benchmark", "savefig.dpi": 150,
}  # fmt: skip


def styles(names: list[str]) -> dict[str, dict]:
    """A colour and a dash pattern for each name; 7 and 8 of them, so a pair comes again only after 56 names."""
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]} for i, name in enumerate(names)
    }


def save(figure: plt.Figure, stem: Path) -> None:
    """Write stem.png and stem.svg; the same figure gives the same bytes on any day."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_atomically(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue())
    plt.close(figure)


def legend_below(axes: plt.Axes, handlelength: float = 3.2) -> None:
    """The legend under the plot, where it hides nothing, in as many columns as fit, and the figure as much higher."""
    for columns in (3, 2, 1):
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=columns, handlelength=handlelength, columnspacing=1,
            fontsize=7.5,
        )  # fmt: skip
        if legend.get_window_extent().width < 0.9 * axes.figure.bbox.width:  # the plot is not quite in the middle
            break
    axes.figure.set_figheight(3.4 + 0.16 * math.ceil(len(legend.get_texts()) / columns))


def plot_bands(
    stem: Path, lines: dict[str, tuple], labels: dict[str, str], style: dict[str, dict],
    title: str, x_label: str, y_label: str, level: float | None = None,
) -> None:  # fmt: skip
    """Lines with bands: lines[name] = (x, y, low, high), each (points,), NaN where there is nothing to show.

    `level`, where given, is marked by a thin horizontal line: the environment's threshold.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots()
        for name, (x, y, low, high) in lines.items():
            axes.plot(x, y, label=labels[name], **style[name])
            axes.fill_between(x, low, high, color=style[name]["color"], alpha=0.18, linewidth=0)
        if level is not None:
            axes.axhline(level, color="0.4", linewidth=0.8)
            axes.annotate(
                f"threshold {level:g}", (0, level), xycoords=("axes fraction", "data"),
                xytext=(3, 2), textcoords="offset points", fontsize=7, color="0.3",
            )  # fmt: skip
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        counts = x_label.endswith(("steps", "completions"))
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if counts else ScalarFormatter())
        legend_below(axes)
        save(figure, stem)


def plot_frontier(
    stem: Path, points: dict[str, list], joined: list[list[str]], curve: tuple[np.ndarray, np.ndarray],
    labels: dict[str, str], scripts: dict[str, str], title: str, x_label: str, y_label: str,
) -> None:  # fmt: skip
    """Points with bars both ways beside a curve, y on a logit scale, x on a log scale from 1 on if it goes beyond 2:
    points[name] = [x, y], each (estimate, low, high), the ends NaN where they are unknown. A colour for each script, a
    marker for each name; thin lines join some."""
    palette = {script: COLOURS[i % len(COLOURS)] for i, script in enumerate(sorted(set(scripts.values())))}
    inside = {name: [x, np.clip(y, TICKS[0], TICKS[-1])] for name, (x, y) in points.items()}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots()
        axes.plot(*curve, color="0.4", linewidth=1, label="optimum")
        for names in joined:
            x, y = np.array([[inside[name][0][0], inside[name][1][0]] for name in names]).T
            places, between = np.arange(len(names)), np.linspace(0, len(names) - 1, 100)
            x, y = np.interp(between, places, x), np.interp(between, places, y)  # straight without the scales
            axes.plot(x, y, color=palette[scripts[names[0]]], linewidth=0.8, alpha=0.6)
        for i, (name, (x, y)) in enumerate(inside.items()):
            colour = palette[scripts[name]]
            axes.plot(x[1:], [y[0]] * 2, [x[0]] * 2, y[1:], color=colour, linewidth=1)
            axes.plot(x[0], y[0], MARKERS[i % len(MARKERS)], color=colour, markersize=4.5, label=labels[name])
        shown = np.concatenate([curve[1][:1].clip(TICKS[0]), *(y for _, y in inside.values())])
        axes.set_yscale("logit")
        axes.set_yticks(TICKS, map("{:g}".format, TICKS))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(expit(logit(np.nanmin(shown)) - 0.3), expit(logit(np.nanmax(shown)) + 0.3))
        farthest = np.nanmax([x for x, _ in inside.values()])
        if farthest > 2:
            axes.set_xscale("symlog", linthresh=1, linscale=2)
            axes.set_xticks(NATS, map("{:g}".format, NATS))
            axes.set_xlim(-0.05, farthest * 1.15)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        legend_below(axes, 1.5)
        save(figure, stem)


def plot_scaling(
    stem: Path, lines: dict[str, tuple], labels: dict[str, str], style: dict[str, dict],
    title: str, x_label: str, y_label: str,
) -> None:  # fmt: skip
    """Lines with bands on logarithmic axes, x as powers of two: lines[name] = (x, y, low, high), each (points,)."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots()
        for name, (x, y, low, high) in lines.items():
            axes.plot(x, y, marker="o", markersize=3, label=labels[name], **style[name])
            axes.fill_between(x, low, high, color=style[name]["color"], alpha=0.18, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        ticks = sorted({int(x) for line in lines.values() for x in line[0]})
        axes.set_xticks(ticks, [str(x) for x in ticks])
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        legend_below(axes)
        save(figure, stem)


def plot_intervals(stem: Path, rows: list[tuple[str, float, float, float]], title: str, x_label: str) -> None:
    """One row for each (label, estimate, low, high), all within 0 and 1, beside a line at one half."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 1.2 + 0.26 * len(rows)))
        for i, (_, estimate, low, high) in enumerate(reversed(rows)):
            if np.isfinite(low):
                axes.plot([low, high], [i, i], color=COLOURS[0], linewidth=4, alpha=0.35, solid_capstyle="butt")
            axes.plot(estimate, i, "o", color=COLOURS[0], markersize=4)
        axes.axvline(0.5, color="0.4", linewidth=0.8)
        axes.set(title=title, xlabel=x_label, xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4))
        axes.set_yticks(range(len(rows)), [label for label, *_ in reversed(rows)])
        save(figure, stem)


def plot_matrix(stem: Path, values: dict[tuple[str, str], float], title: str, x_label: str, y_label: str) -> None:
    """Probabilities (row, column) -> value as shaded cells with two digits, where there are too many for rows."""
    names = list(dict.fromkeys(name for pair in values for name in pair))
    cells = np.full((len(names), len(names)), np.nan)
    for (row, column), value in values.items():
        i, j = names.index(row), names.index(column)
        cells[i, j], cells[j, i] = value, 1 - value
    with plt.rc_context(STYLE | {"axes.grid": False}):
        size = 1.8 + 0.36 * len(names)
        figure, axes = plt.subplots(figsize=(size, size))
        axes.imshow(cells, cmap="RdBu", vmin=0, vmax=1)
        for i, j in np.argwhere(np.isfinite(cells)):
            colour = "white" if abs(cells[i, j] - 0.5) > 0.4 else "black"
            axes.text(j, i, f"{cells[i, j]:.2f}", ha="center", va="center", fontsize=6, color=colour)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        save(figure, stem)
