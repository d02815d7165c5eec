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
from collections import Counter
from difflib import SequenceMatcher
from functools import cache

from .structure import Part

SAME, INDENTED, CHANGED, LEFT, RIGHT, LEFT_MOVED, RIGHT_MOVED = range(7)
ALIKE = 0.5  # lines more alike than this stand side by side, as one line that changed
RENAMED = 0.6  # parts under other names that share this much of their lines, likewise


@cache
def words(line: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+|\s+|.", line))


@cache
def likeness(left: str, right: str) -> float:
    """The share of two lines' characters, without blanks, that are words of both, in order."""
    pair = [[word for word in words(line) if not word.isspace()] for line in (left, right)]
    total = sum(len(word) for side in pair for word in side)
    common = [sum(map(len, (Counter(pair[0]) & Counter(pair[1])).elements())), 0]
    if not total or 2 * common[0] / total < ALIKE:  # an upper bound, found faster
        return float(left == right)
    for block in SequenceMatcher(None, *pair, autojunk=False).get_matching_blocks():
        common[1] += sum(map(len, pair[0][block.a : block.a + block.size]))
    return 2 * common[1] / total


@cache
def marks(left: str, right: str) -> tuple[list[int], list[int]]:
    """Where two lines differ, to the word: starts and ends in turn, for each. Differences with
    nothing but blanks between them are one, and indentation is none."""
    pair, result = (words(left), words(right)), ([], [])
    for tag, *bounds in SequenceMatcher(None, *pair, autojunk=False).get_opcodes():
        for side, (first, last) in enumerate((bounds[:2], bounds[2:])):
            start, length = (
                len("".join(pair[side][i:j])) for i, j in ((0, first), (first, last))
            )
            text, found = (left, right)[side], result[side]
            if tag == "equal" or not text[start : start + length].strip():
                continue
            if found and not text[found[-1] : start].strip():
                found[-1] = start + length
            else:
                found += [start, start + length]
    return result


def pair_up(left: list[str], right: list[str]) -> list[tuple[int, int]]:
    """Pairs of alike lines, in order on both sides, that have the most text in common."""
    best = [[(0.0, None)] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            options = [(best[i + 1][j][0], (i + 1, j)), (best[i][j + 1][0], (i, j + 1))]
            if (alike := likeness(left[i], right[j])) >= ALIKE:
                weight = alike * (1 + min(len(left[i]), len(right[j])))
                options.append((best[i + 1][j + 1][0] + weight, (i + 1, j + 1)))
            best[i][j] = max(options, key=lambda option: option[0])
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        following = best[i][j][1]
        if following == (i + 1, j + 1):
            pairs.append((i, j))
        i, j = following
    return pairs


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
    """The rows of two parts: (kind, n), or (CHANGED, marks, marks)."""
    rows, i, j = [], 0, 0
    for x, y in [*line_pairs(left, right), (len(left), len(right))]:
        rows += [(LEFT, x - i)] * (x > i) + [(RIGHT, y - j)] * (y > j)
        i, j = x + 1, y + 1
        if x < len(left):
            a, b = left[x], right[y]
            kind = SAME if a == b else INDENTED if a.strip() == b.strip() else CHANGED
            last = rows[-1] if rows else (None,)
            if kind == CHANGED:
                rows.append((CHANGED, *marks(a, b)))
            elif last[0] == kind:
                rows[-1] = (kind, last[1] + 1)
            else:
                rows.append((kind, 1))
    return rows


def match_parts(
    left: list[Part],
    right: list[Part],
    text: tuple[list[str], list[str]],
    groups: list[list[str]],
) -> dict[int, int]:
    """Which part of the right script belongs to each of the left: the one of the same name,
    else a counterpart of one group, else one of the same section with much the same lines."""
    names = {part.name: j for j, part in enumerate(right)}
    found = {i: names[part.name] for i, part in enumerate(left) if part.name in names}

    def free(wanted=None):
        return (
            [i for i, p in enumerate(left) if i not in found and (not wanted or p.name in wanted)],
            [j for j, p in enumerate(right)
             if j not in found.values() and (not wanted or p.name in wanted)],
        )  # fmt: skip

    for group in groups:
        found |= zip(*free(group), strict=False)
    for i in free()[0]:
        lines = {line.strip() for line in text[0][left[i].start : left[i].end]} - {""}
        for j in free()[1]:
            others = {line.strip() for line in text[1][right[j].start : right[j].end]} - {""}
            share = 2 * len(lines & others) / max(1, len(lines) + len(others))
            if left[i].section == right[j].section and share >= RENAMED:
                found[i] = j
                break
    return found


def in_order(left: list[Part], right: list[Part], found: dict[int, int]) -> list[tuple]:
    """Entries (left part, right part, moved) in the order they are read in."""
    ids = [-1 - found[i] if i in found else i for i in range(len(left))]
    others = [-1 - j if j in found.values() else len(left) + j for j in range(len(right))]
    back, entries = {j: i for i, j in found.items()}, []
    for tag, i, i_end, j, j_end in SequenceMatcher(
        None, ids, others, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            entries += [(x, found[x], 0) for x in range(i, i_end)]
        else:
            entries += [(x, -1, int(x in found)) for x in range(i, i_end)]
            entries += [(back.get(y, -1), y, int(y in back)) for y in range(j, j_end)]
    return entries


def mark_moved(entries: list[tuple], left: list[str], right: list[str]) -> list[tuple]:
    """Entries whose one-sided lines, where they occur once on the other side too, are moved."""
    single = ({}, {})  # text of a one-sided line -> its numbers
    for side, sides, kind in ((0, left, LEFT), (1, right, RIGHT)):
        for *_, numbered in entries:
            for row, numbers in numbered:
                if row[0] == kind:
                    for number in range(numbers[side], numbers[side] + row[1]):
                        single[side].setdefault(sides[number].strip(), []).append(number)
    once = [{text: at[0] for text, at in side.items() if len(at) == 1} for side in single]
    moved = {text for text in once[0] if len(text) > 20 and text in once[1]}
    result = []
    for *head, numbered in entries:
        rows = []
        for row, numbers in numbered:
            if row[0] not in (LEFT, RIGHT):
                rows.append(row)
                continue
            side = row[0] - LEFT
            for number in range(numbers[side], numbers[side] + row[1]):
                text = (left, right)[side][number].strip()
                new = (row[0] + 2, 1, once[1 - side][text]) if text in moved else (row[0], 1)
                last = rows[-1] if rows else (None,)
                joins = last[0] == new[0] and last[2:] == tuple(x - last[1] for x in new[2:])
                if joins:
                    rows[-1] = (last[0], last[1] + 1, *last[2:])
                else:
                    rows.append(new)
        result.append((*head, rows))
    return result


def align(
    left: list[str], right: list[str], left_parts: list[Part], right_parts: list[Part],
    groups: list[list[str]] = (),
) -> list[tuple]:  # fmt: skip
    """The alignment of two scripts, given as lines; `groups` are names of counterparts."""
    found = match_parts(left_parts, right_parts, (left, right), groups)
    entries = []
    for i, j, moved in in_order(left_parts, right_parts, found):
        spans = [range(0)] * 2
        if not (moved and j < 0):
            spans = [range(p[n].start, p[n].end) if n >= 0 else range(0)
                     for p, n in ((left_parts, i), (right_parts, j))]  # fmt: skip
        a, b = spans[0].start, spans[1].start
        numbered = []
        for row in compare_lines([left[n] for n in spans[0]], [right[n] for n in spans[1]]):
            numbered.append((row, (a, b)))
            n = 1 if row[0] == CHANGED else row[1]
            a, b = a + n * (row[0] != RIGHT), b + n * (row[0] != LEFT)
        entries.append((i, j, moved, numbered))
    return mark_moved(entries, left, right)
