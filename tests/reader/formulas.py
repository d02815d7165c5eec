"""The value of a formula as it is typeset: MathML, read as a mathematician reads it.

A product binds tighter than a sum, and a function without brackets takes the next factor only.
A large sum goes over the product behind it, up to the next plus, minus or closing bracket.
Symbols are LaTeX, typeset like the formula and found in it by their MathML.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import torch
from torch import Tensor

from reader.page import mathml

FUNCTIONS = {
    "log": torch.log, "exp": torch.exp, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}  # fmt: skip
OF_SEVERAL = {"min": torch.minimum, "max": torch.maximum, "clip": torch.clamp}
MEAN = "\N{MATHEMATICAL DOUBLE-STRUCK CAPITAL E}"
BRACKETS = {"(": ")", "[": "]"}
PLUS, MINUS, TIMES = "+", "\N{MINUS SIGN}", "\N{DOT OPERATOR}"


def flat(element: ET.Element) -> tuple:
    """An element as tokens: texts, and (tag, tokens of each child) of scripts and fractions."""
    if element.tag in ("mi", "mn", "mo", "mtext"):
        text = (element.text or "").strip().strip("\N{FUNCTION APPLICATION}")
        return (text,) if text else ()
    children = [flat(child) for child in element]
    if element.tag in ("math", "mrow", "mspace", "mstyle"):
        return tuple(token for child in children for token in child)
    return ((element.tag.replace("under", "sub").replace("msubover", "msubsup"), *children),)


def tokens(latex: str) -> tuple:
    text = mathml(latex, True).replace("&ApplyFunction;", "\N{FUNCTION APPLICATION}")
    return flat(ET.fromstring(text))


class Formula:
    """Evaluates tokens. `symbols`: LaTeX -> tensor, all with equally many axes. `over`: LaTeX
    of what stands under a sum, a mean or a minimum -> its axis, and what weighs the entries."""

    def __init__(self, symbols: dict[str, Tensor | float], over: dict[str, tuple] = ()):
        known = {tokens(latex): torch.as_tensor(x).double() for latex, x in symbols.items()}
        self.symbols = sorted(known.items(), key=lambda item: -len(item[0]))
        self.over = {tokens(latex): where for latex, where in dict(over).items()}

    def sides(self, found: tuple) -> list[Tensor]:
        """The values of what stands between the signs of equality."""
        ends = [i for i, token in enumerate(found) if token == "="]
        pieces = zip([-1, *ends], [*ends, len(found)], strict=True)
        return [self.all_of(found[start + 1 : end]) for start, end in pieces]

    def all_of(self, found: tuple) -> Tensor:
        self.left = [*found]
        value = self.sum()
        if self.left:
            raise ValueError(f"unread: {self.left}")
        return value

    def inner(self, found: tuple) -> Tensor:
        outer, self.left = self.left, None
        value = self.all_of(found)
        self.left = outer
        return value

    def sum(self) -> Tensor:
        sign = self.left.pop(0) if self.left[0] in (PLUS, MINUS) else PLUS
        value = self.product() * (1 if sign == PLUS else -1)
        while self.left and self.left[0] in (PLUS, MINUS):
            sign = self.left.pop(0)
            value = value + self.product() * (1 if sign == PLUS else -1)
        return value

    def ends(self) -> bool:
        if not self.left:
            return True
        token = self.left[0]
        closing = token[1][0] if token[0] == "msup" and token[1] else token
        return closing in (PLUS, MINUS, ",", *BRACKETS.values())

    def product(self) -> Tensor:
        value = self.factor()
        while not self.ends():
            if self.left[0] == TIMES:
                self.left.pop(0)
            divide = self.left[0] == "/" and self.left.pop(0)
            factor = self.factor()
            value = value / factor if divide else value * factor
        return value

    def bracket(self) -> list[Tensor]:
        """What is in brackets, between commas, raised to the power that the last one bears."""
        close, values = BRACKETS[self.left.pop(0)], [self.sum()]
        while self.left[0] == ",":
            self.left.pop(0)
            values.append(self.sum())
        last = self.left.pop(0)
        if last == close:
            return values
        assert last[:2] == ("msup", (close,)), last
        (value,) = values
        return [value ** self.inner(last[2])]

    def reduced(self, kind: str, under: tuple, value: Tensor) -> Tensor:
        axis, weights = self.over[under]
        if kind == "min":
            return value.amin(axis, keepdim=True)
        weights = torch.ones_like(value) if weights is None else weights.to(value)
        if kind == "\N{N-ARY PRODUCT}":
            return (value**weights).prod(axis, keepdim=True)
        total = (value * weights).sum(axis, keepdim=True)
        one = (torch.ones_like(value) * weights).sum(axis, keepdim=True)
        return total / one if kind == MEAN else total

    def factor(self) -> Tensor:
        for found, value in self.symbols:
            if tuple(self.left[: len(found)]) == found:
                del self.left[: len(found)]
                return value
        if self.left[0] in BRACKETS:
            (value,) = self.bracket()
            return value
        token = self.left.pop(0)
        if isinstance(token, str):
            if token in OF_SEVERAL:
                return OF_SEVERAL[token](*self.bracket())
            if token == MEAN:
                return self.reduced(token, (), self.factor())
            return FUNCTIONS[token](self.factor()) if token in FUNCTIONS else number(token)
        tag, first, *rest = token
        if tag == "mfrac":
            return self.inner(first) / self.inner(rest[0])
        if tag == "msqrt":
            return self.inner(first).sqrt()
        if tag == "msup" and first[0] in FUNCTIONS:
            return FUNCTIONS[first[0]](self.factor()) ** self.inner(rest[0])
        if tag == "msup":
            return self.inner(first) ** self.inner(rest[0])
        if tag in ("msub", "msubsup"):
            (kind,) = first
            every = kind in "\N{N-ARY SUMMATION}\N{N-ARY PRODUCT}"
            value = self.product() if every else self.factor()
            return self.reduced(kind, rest[0], value)
        raise ValueError(f"unknown: {token}")


def number(text: str) -> Tensor:
    if not re.fullmatch(r"[\d.]+", text):
        raise ValueError(f"unknown: {text}")
    return torch.tensor(float(text)).double()


def agree(values: list[Tensor]) -> bool:
    """All sides have one value."""
    values = torch.broadcast_tensors(*values)
    return len(values) > 1 and all(torch.allclose(x, values[0], rtol=1e-5) for x in values)


def changed(found: tuple, swap: Callable[[str], str | None]) -> list[tuple]:
    """The same tokens with one of them swapped, for each that `swap` knows another one for."""
    results = []
    for i, token in enumerate(found):
        if isinstance(token, str):
            others = [other] if (other := swap(token)) else []
        else:
            tag, *children = token
            others = [
                (tag, *children[:k], inner, *children[k + 1 :])
                for k, child in enumerate(children)
                if tag not in ("msub", "msubsup")
                for inner in changed(child, swap)
            ]
        results += [(*found[:i], other, *found[i + 1 :]) for other in others]
    return results
