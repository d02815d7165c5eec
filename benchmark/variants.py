"""Variants of a suite's algorithms in which one flag differs from its default."""

import ast
import re
from contextlib import suppress
from pathlib import Path

from .words import BadInput


def script_defaults(script: Path) -> dict[str, object]:
    """The defaults of a script's Args, as far as they stand there as plain values."""
    found = {}
    text = script.read_text(encoding="utf-8")
    for name, value in re.findall(r"(?m)^    (\w+): [^=#\n]+ = ([^#\n]+)", text):
        with suppress(ValueError, SyntaxError):
            found[name] = ast.literal_eval(value.strip())
    return found


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
        entry, values = suite["algorithms"][name], dict(asked.get("values", {}))
        given = entry.get("flags", {})
        defaults = script_defaults(scripts[name]) | given
        for flag in [*asked.get("flags", []), *values]:
            default = defaults.get(flag)
            if type(default) not in (int, float):
                raise BadInput(f"{scripts[name].name} has no numeric default of {flag}")
            if flag not in values:
                values[flag] = variants(default, table["factors"], flag in lacking)
            for value in values[flag]:
                if value != default:
                    variant = entry | {"flags": given | {flag: value}}
                    suite["algorithms"][f"{name} {flag}={value}"] = variant
