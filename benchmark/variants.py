"""Variants of a suite's algorithms in which one flag differs from its default."""

import ast
import re
from pathlib import Path

from .words import BadInput


def default_of(script: Path, flag: str) -> float | int:
    """The default of a numeric flag, from the script's text."""
    text = script.read_text(encoding="utf-8")
    found = re.search(rf"(?m)^    {flag}: (?:int|float)[^=\n]* = ([-\d._e]+)", text)
    if not found:
        raise BadInput(f"{script.name} has no numeric default of {flag}")
    return ast.literal_eval(found[1])


def variants(default: float | int, factors: list[float], lacking: bool) -> list[float | int]:
    """Multiples of a default, or, of what it lacks to 1, in the type that it has; without
    those that are equal to it."""
    if lacking:
        found = [1 - factor * (1 - default) for factor in factors]
    else:
        found = [factor * default for factor in factors]
    if isinstance(default, int):
        found = [max(1, round(x)) for x in found]
    else:
        found = [float(f"{x:.4g}") for x in found]
    return [x for x in dict.fromkeys(found) if x != default and (x > 0 or not lacking)]


def add_variants(suite: dict, scripts: dict[str, Path]) -> None:
    """Add to a suite's algorithms the variants that its table `sensitivity` asks for: a product
    of each default with each factor, and values of their own for some flags."""
    table = suite.pop("sensitivity")
    lacking = table.get("lacking", [])
    suite["report"] = suite.get("report", {}) | {"lacking": lacking}
    for name, asked in table["vary"].items():
        entry = suite["algorithms"][name]
        given, several = entry.get("flags", {}), dict(asked.get("values", {}))
        for flag in asked.get("flags", []):
            default = given[flag] if flag in given else default_of(scripts[name], flag)
            several[flag] = variants(default, table["factors"], flag in lacking)
        for flag, found in several.items():
            default = given[flag] if flag in given else default_of(scripts[name], flag)
            for value in (value for value in found if value != default):
                variant = entry | {"flags": given | {flag: value}}
                suite["algorithms"][f"{name} {flag}={value}"] = variant
