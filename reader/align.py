"""Two scripts aligned: part beside part, then line beside line, then word beside word.

An alignment is a list of entries (left part, right part, rows), with -1 where a side has no
such part, in the right script's order. A row is one of

    (SAME, n), (INDENTED, n)    n lines on both sides, equal but for their indentation
    (CHANGED, marks, marks)     a line on both sides; marks: starts and ends of what differs
    (APART, n, m)               n lines of the left, beside m of the right that are unlike them
"""

import re
from difflib import SequenceMatcher
from functools import cache
from itertools import groupby, product

from .structure import Part

SAME, INDENTED, CHANGED, APART = range(4)
ALIKE = 0.5  # lines that share more of their words stand side by side, as one that changed
HEAD = re.compile(r"(def) |(\w+)(?:: [^=]+)? +[|+]?= ")  # of a function, or of what is assigned


@cache
def likeness(left: str, right: str) -> float:
    """The share of two lines' words that both have, in order; 1 for two heads of functions, or
    lines that assign to the same name."""
    heads = [HEAD.match(line) for line in (left, right)]
    if all(heads) and heads[0].groups() == heads[1].groups():
        return 1.0
    pair = [re.findall(r"\w+", line) for line in (left, right)]
    matcher = SequenceMatcher(None, *pair, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= ALIKE else 0.0


@cache
def marks(left: str, right: str) -> tuple[list[int], list[int]]:
    """Where two lines differ, to the word: starts and ends in turn, for each."""
    pair, result = [re.findall(r"\w+|\s+|.", line) for line in (left, right)], ([], [])
    for tag, *bounds in SequenceMatcher(None, *pair, autojunk=False).get_opcodes():
        for side, text in enumerate((left, right)):
            start, end = (len("".join(pair[side][:n])) for n in bounds[2 * side : 2 * side + 2])
            start = end - len(text[start:end].lstrip())  # no mark begins with indentation
            if tag != "equal" and start < end:
                result[side].extend((start, end))
    return result


def pair_up(left: list[str], right: list[str]) -> list[tuple[int, int]]:
    """Pairs of alike lines, in order: those with the most in common, then before and after."""
    found = product(enumerate(left), enumerate(right))
    alike = {(i, j): likeness(a, b) * (1 + min(len(a), len(b)))
             for (i, a), (j, b) in found if likeness(a, b) >= ALIKE}  # fmt: skip
    if not alike:
        return []
    i, j = max(alike, key=alike.get)
    after = pair_up(left[i + 1 :], right[j + 1 :])
    return [*pair_up(left[:i], right[:j]), (i, j), *((i + 1 + x, j + 1 + y) for x, y in after)]


def line_pairs(left: list[str], right: list[str]) -> list[tuple[int, int]]:
    """Which lines stand side by side. Indentation is ignored, and no match begins at a line of
    a bracket or a blank one."""
    pair, pairs = [[line.strip() for line in side] for side in (left, right)], []
    matcher = SequenceMatcher(lambda line: len(line) < 4, *pair, autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            pairs += zip(range(i, i_end), range(j, j_end), strict=True)
        elif tag == "replace":
            inner = pair_up(pair[0][i:i_end], pair[1][j:j_end])
            pairs += [(i + x, j + y) for x, y in inner]
    return pairs


def compare_lines(left: list[str], right: list[str]) -> list[tuple]:
    """The kind of each row, with the marks of a changed one, and how many lines are apart."""
    rows, i, j = [], 0, 0
    for x, y in [*line_pairs(left, right), (len(left), len(right))]:
        if (x, y) != (i, j):
            rows.append((APART, x - i, y - j))
        i, j = x + 1, y + 1
        for a, b in zip(left[x:i], right[y:j], strict=True):
            alike = (INDENTED,) if a.strip() == b.strip() else (CHANGED, *marks(a, b))
            rows.append((SAME,) if a == b else alike)
    return rows


def docstring(lines: list[str]) -> range:
    """The lines of the first docstring."""
    marked = [n for n, line in enumerate(lines) for _ in range(line.count('"""'))]
    return range(marked[0], marked[1] + 1) if len(marked) > 1 else range(0)


def sentences(lines: list[str]) -> set[str]:
    text = "\n".join(line.strip() for line in lines).strip('"\n')
    return {" ".join(one.split()) for one in re.split(r"(?<=[.:;])\s|\n\n", text)} - {""}


def compare_parts(left: list[str], right: list[str]) -> list[tuple]:
    """As compare_lines, but docstrings without a common sentence follow one another."""
    x, y = docstring(left), docstring(right)
    common = sentences(left[x.start : x.stop]) & sentences(right[y.start : y.stop])
    if not (x and y) or common:
        return compare_lines(left, right)
    before = compare_lines(left[: x.start], right[: y.start])
    after = compare_lines(left[x.stop :], right[y.stop :])
    return [*before, (APART, len(x), 0), (APART, 0, len(y)), *after]


def match_parts(left: list[Part], right: list[Part], groups: list[list[str]]) -> dict[int, int]:
    """Which part of the right script belongs to each of the left: the one of the same name,
    else a counterpart of one group."""
    names = {part.name: j for j, part in enumerate(right)}
    found = {i: names[part.name] for i, part in enumerate(left) if part.name in names}
    for group in groups:
        i = [i for i, part in enumerate(left) if i not in found and part.name in group]
        j = [j for j, p in enumerate(right) if j not in found.values() and p.name in group]
        found |= zip(i, j, strict=False)
    return found


def align(texts: list[list[str]], parts: list[list[Part]], groups: list[list[str]]) -> list:
    """The alignment of two scripts, given as lines; `groups` are names of counterparts."""
    found = match_parts(*parts, groups)
    back = {j: i for i, j in found.items()}
    pairs = [(back.get(j, -1), j) for j in range(len(parts[1]))]
    for i in [i for i in range(len(parts[0])) if i not in found]:
        before = [x for x, _ in pairs].index(i - 1)  # a left part stands behind its predecessor
        pairs.insert(before + 1, (i, -1))
    entries = []
    for i, j in pairs:
        a = texts[0][parts[0][i].start : parts[0][i].end] if i >= 0 else []
        b = texts[1][parts[1][j].start : parts[1][j].end] if j >= 0 else []
        rows = []
        for row, group in groupby(compare_parts(a, b)):
            n = len([*group])
            rows += [(*row, n)] if len(row) == 1 else [row] * n
        entries.append((i, j, rows))
    return entries
