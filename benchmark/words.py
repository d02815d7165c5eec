"""How the benchmark speaks: numbers, intervals, and what is wrong with an input."""

import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class BadInput(Exception):
    """The user asked for something that cannot be; says what is wrong and what would work."""


def did_you_mean(name: str, known: list[str]) -> str:
    """What to say of an unknown name: the names nearest to it, or else all there are."""
    lower = {other.lower(): other for other in known}
    near = [lower[match] for match in get_close_matches(name.lower(), lower)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    if len(known) < 20:
        return f"there are {', '.join(sorted(known))}"
    return "nothing is called anything like it"


def number(value: float | None, digits: int = 1) -> str:
    """A return, a number of steps or of seconds, as a table shows it."""
    if value is None or not math.isfinite(value):
        return "never" if value == math.inf else "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def fine(value: float | None) -> str:
    """A return between 0 and 1, or a divergence in nats."""
    return number(value, 3)


def share(value: float) -> str:
    """A probability or a normalised score."""
    return f"{value:.2f}"


def interval(estimate: float, low: float, high: float, show: Callable = number) -> str:
    """'12.3 [11.0, 13.5]'; the estimate alone where there is no interval; '500.0 (saturated)'
    where it has no width."""
    if math.isnan(low) or low == math.inf:
        return show(estimate)
    if math.isfinite(high) and high - low <= 1e-9 * max(1, abs(estimate)):
        return f"{show(estimate)} (saturated)"
    return f"{show(estimate)} [{show(low)}, {show(high)}]"


def span(values: Iterable[float]) -> str:
    """'100,000' or '99,840 to 300,000'."""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
