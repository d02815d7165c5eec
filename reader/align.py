"""Two scripts aligned: part beside part, then line beside line, then word beside word.

An alignment is a list of entries (left part, right part, moved, rows), with -1 where a side has
no such part. A part that moved stands where the right script has it; where the left one has it,
an entry without rows says so. A row is one of

    (SAME, n), (INDENTED, n)    n lines on both sides, equal but for their indentation
    (CHANGED, marks, marks)     a line on both sides; marks: starts and ends of what differs
    (LEFT, n), (RIGHT, n)       n lines on one side
    (LEFT_MOVED, n, at), (RIGHT_MOVED, n, at)    the same, found at line `at` of the other side
"""

import re
from difflib import SequenceMatcher
from functools import cache
from itertools import product

from .structure import Part

SAME, INDENTED, CHANGED, LEFT, RIGHT, LEFT_MOVED, RIGHT_MOVED = range(7)
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
    """Where two lines differ, to the word: starts and ends in turn, for each. Differences with
    nothing but blanks between them are one, and indentation is none."""
    pair, result = [re.findall(r"\w+|\s+|.", line) for line in (left, right)], ([], [])
    for tag, *bounds in SequenceMatcher(None, *pair, autojunk=False).get_opcodes():
        for side, text in enumerate((left, right)):
            first, last = bounds[2 * side : 2 * side + 2]
            start, end = (len("".join(pair[side][:n])) for n in (first, last))
            found = result[side]
            start = end - len(text[start:end].lstrip())  # no mark begins with indentation
            if tag != "equal" and start < end:
                if found and not text[found[-1] : start].strip():
                    found[-1] = end
                else:
                    found += [start, end]
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


def docstring(lines: list[str], span: range) -> range:
    """The lines of the first docstring among those of `span`."""
    marked = [n for n in span for _ in range(lines[n].count('"""'))]
    return range(marked[0], marked[1] + 1) if len(marked) > 1 else range(span.stop, span.stop)


def sentences(lines: list[str], span: range) -> set[str]:
    text = "\n".join(lines[n].strip() for n in span).strip('"\n')
    return {" ".join(one.split()) for one in re.split(r"(?<=[.:;])\s|\n\n", text)} - {""}


def compare_parts(left: list[str], right: list[str], a: range, b: range) -> list[list]:
    """As compare_lines, but docstrings without a common sentence follow one another."""
    x, y = docstring(left, a), docstring(right, b)
    if not (x and y) or sentences(left, x) & sentences(right, y):
        return compare_lines(left, right, a, b)
    rows = compare_lines(left, right, range(a.start, x.start), range(b.start, y.start))
    rows += [[LEFT, n, None, None] for n in x] + [[RIGHT, None, n, None] for n in y]
    return rows + compare_lines(left, right, range(x.stop, a.stop), range(y.stop, b.stop))


def compare_lines(left: list[str], right: list[str], a: range, b: range) -> list[list]:
    """[kind, number on the left, number on the right, at] of each line of two ranges."""
    rows, i, j = [], a.start, b.start
    pairs = line_pairs([left[n] for n in a], [right[n] for n in b])
    for x, y in [*((a.start + x, b.start + y) for x, y in pairs), (a.stop, b.stop)]:
        rows += [[LEFT, n, None, None] for n in range(i, x)]
        rows += [[RIGHT, None, n, None] for n in range(j, y)]
        i, j = x + 1, y + 1
        if x < a.stop:
            alike = left[x].strip() == right[y].strip()
            kind = SAME if left[x] == right[y] else INDENTED if alike else CHANGED
            rows.append([kind, x, y, None])
    return rows


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


def in_order(left: int, right: int, found: dict[int, int]) -> list[tuple[int, int, int]]:
    """Entries (left part, right part, moved) of so many parts, in the order to read them in."""
    ids = [("pair", found[i]) if i in found else i for i in range(left)]
    back, entries = {j: i for i, j in found.items()}, []
    others = [("pair", j) if j in back else ("right", j) for j in range(right)]
    matcher = SequenceMatcher(None, ids, others, autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            entries += [(x, found[x], 0) for x in range(i, i_end)]
        else:
            entries += [(x, -1, int(x in found)) for x in range(i, i_end)]
            entries += [(back.get(y, -1), y, int(y in back)) for y in range(j, j_end)]
    return entries


def mark_moved(rows: list[list], left: list[str], right: list[str]) -> None:
    """Lines of one side that occur once on the other, and there alone too, have moved."""
    alone = ({}, {})  # text -> rows that have it on one side
    for row in rows:
        if row[0] in (LEFT, RIGHT):
            side = row[0] - LEFT
            alone[side].setdefault((left, right)[side][row[1 + side]].strip(), []).append(row)
    for text in alone[0].keys() & alone[1].keys():
        if len(text) > 20 and len(alone[0][text]) == len(alone[1][text]) == 1:
            (a,), (b,) = alone[0][text], alone[1][text]
            a[0], a[3], b[0], b[3] = LEFT_MOVED, b[2], RIGHT_MOVED, a[1]


def in_runs(rows: list[list], left: list[str], right: list[str]) -> list[tuple]:
    """The rows as the page has them."""
    runs = []
    for kind, i, j, at in rows:
        last = runs[-1] if runs else (None,)
        if kind == CHANGED:
            runs.append((CHANGED, *marks(left[i], right[j])))
        elif last[0] == kind and (at is None or at == last[2] + last[1]):
            runs[-1] = (kind, last[1] + 1, *last[2:])
        else:
            runs.append((kind, 1) if at is None else (kind, 1, at))
    return runs


def align(
    left: list[str], right: list[str], left_parts: list[Part], right_parts: list[Part],
    groups: list[list[str]] = (),
) -> list[tuple]:  # fmt: skip
    """The alignment of two scripts, given as lines; `groups` are names of counterparts."""
    found = match_parts(left_parts, right_parts, groups)
    entries = in_order(len(left_parts), len(right_parts), found)
    bodies = []
    for i, j, moved in entries:
        elsewhere = moved and j < 0
        spans = [range(0) if n < 0 or elsewhere else range(parts[n].start, parts[n].end)
                 for n, parts in ((i, left_parts), (j, right_parts))]  # fmt: skip
        bodies.append(compare_parts(left, right, *spans))
    mark_moved([row for body in bodies for row in body], left, right)
    return [
        (*entry, in_runs(body, left, right))
        for entry, body in zip(entries, bodies, strict=True)
    ]
