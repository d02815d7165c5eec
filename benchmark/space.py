"""The flags that a search varies: tables of a TOML file, as in spaces.toml."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .grid import refuse_reserved
from .words import BadInput, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPACES = Path(__file__).resolve().parent / "spaces.toml"
SCALES = ("linear", "log", "log of 1 - x", "powers of 2")

Value = bool | int | float | str


@dataclass(frozen=True)
class Dimension:
    """One flag: a range, or `choices`.

    What the search draws for a value x is x itself, or by the scale 1 - x or its power of 2.
    """

    name: str  # as in the script's Args
    low: float = 0.0
    high: float = 0.0
    scale: str = "linear"
    choices: tuple[Value, ...] = ()

    def distribution(self):
        """What Optuna draws from."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.scale == "powers of 2":
            return IntDistribution(*(round(math.log2(end)) for end in (self.low, self.high)))
        if self.scale == "log of 1 - x":
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        kind = IntDistribution if self.is_whole else FloatDistribution
        return kind(self.low, self.high, log=self.scale == "log")

    def value(self, seen: Value) -> Value:
        """The flag's value, of few digits, for what the search draws."""
        if self.choices:
            return seen
        if self.scale == "powers of 2":
            return 2**seen
        if self.scale == "log of 1 - x":
            return float(f"{1 - float(f'{seen:.2g}'):.10g}")
        return float(f"{seen:.3g}") if isinstance(seen, float) else seen

    def nearest(self, value: object) -> Value | None:
        """What the search would draw for the flag's value, or nearest to it; None where that
        means nothing."""
        if self.choices:
            return value if value in self.choices else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        value = min(max(value, self.low), self.high)
        if self.scale == "powers of 2":
            return round(math.log2(value))
        if self.scale == "log of 1 - x":
            return 1 - value
        return round(value) if self.is_whole else float(value)

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def load_space(name: str, fixed: Iterable[str] = ()) -> list[Dimension]:
    """The space called `name` in spaces.toml, or in the TOML file FILE of 'FILE:NAME' or 'FILE'
    (its only one), without the flags that are `fixed`."""
    path, table = SPACES, name
    if ".toml" in name:
        file, _, table = name.partition(".toml")
        path, table = Path(f"{file}.toml"), table.removeprefix(":")
    try:
        spaces = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from None
    if not table and len(spaces) == 1:
        (table,) = spaces
    if table not in spaces:
        how = "--space names one of those, or a TOML file of your own"
        hint = did_you_mean(table, list(spaces))
        raise BadInput(f"there is no space {table or 'of that name'} in {path}; {hint} ({how})")
    merged = {x.replace("-", "_"): entry for x, entry in merge(spaces, table, path).items()}
    if "total_timesteps" in merged:
        raise BadInput(f"[{table}] of {path} must not vary total_timesteps: that is --steps")
    refuse_reserved(merged, f"[{table}] of {path}")
    space = [
        read_dimension(flag, entry, f"{path}: {table}.{flag}") for flag, entry in merged.items()
    ]
    space = [dimension for dimension in space if dimension.name not in set(fixed)]
    if not space:
        raise BadInput(f"[{table}] of {path} leaves no flag to vary")
    return space


def merge(spaces: dict, table: str, path: Path) -> dict:
    """The entries of a table, over those of the table that it is `like`."""
    entries = spaces[table]
    if not isinstance(entries, dict):
        raise BadInput(f"{path}: {table} must be a table")
    entries = dict(entries)
    if not entries.pop("source", None):
        raise BadInput(f"{path}: [{table}] must name the source of its ranges: source = '...'")
    parent = entries.pop("like", None)
    if parent is None:
        return entries
    if not isinstance(parent, str) or "like" in spaces.get(parent, {"like": ""}):
        raise BadInput(
            f"{path}: [{table}] is like {parent}, which is no table that stands alone"
        )
    merged = merge(spaces, parent, path) | entries
    return {name: entry for name, entry in merged.items() if entry != "fixed"}


def read_dimension(name: str, entry: object, place: str) -> Dimension:
    """A dimension from its table: { choices = [...] }, or { low, high, scale }."""

    def need(condition: object, message: str) -> None:
        if not condition:
            raise BadInput(f"{place} {message}")

    need(isinstance(entry, dict), "must be a table such as { low = 0.1, high = 1.0 }")
    if "choices" in entry:
        choices = entry["choices"]
        need(set(entry) == {"choices"}, "has choices, so nothing else can be given")
        good = isinstance(choices, list) and len(choices) > 1
        good = good and all(isinstance(x, (bool, int, float, str)) for x in choices)
        need(good, "choices must be a list of two values or more")
        return Dimension(name, choices=tuple(choices))
    need(set(entry) <= {"low", "high", "scale"}, "takes low, high and scale, or choices")
    need({"low", "high"} <= set(entry), "lacks low or high")
    low, high, scale = entry["low"], entry["high"], entry.get("scale", "linear")
    need(scale in SCALES, f"scale must be one of {', '.join(SCALES)}")
    real = all(type(end) in (int, float) and math.isfinite(end) for end in (low, high))
    need(real and low < high, "low and high must be two rising numbers")
    need(scale == "linear" or low > 0, "low must be above 0 on that scale")
    need(scale != "log of 1 - x" or high < 1, "high must be below 1 on that scale")
    if scale == "powers of 2":
        whole = all(math.log2(end).is_integer() for end in (low, high))
        need(whole, "low and high must be powers of 2")
    return Dimension(name, low, high, scale)


def space_name(script: Path, fixed: dict[str, Value]) -> str:
    """The space of a script; that of benchmark/peers/sb3.py goes by --algo."""
    return f"sb3-{fixed.get('algo', 'ppo')}" if script.stem == "sb3" else script.stem
