"""The alignment: nothing is lost, and planted edits are seen as what they are."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reader.align import APART, CHANGED, INDENTED, SAME, align
from reader.page import load
from reader.structure import parts_of

ROOT = Path(__file__).resolve().parents[2]
TEXTS = load(ROOT)[1]
GROUPS = load(ROOT)[0]["counterparts"]


def aligned(left: str, right: str, groups=()):
    both = left, right
    return align([x.splitlines() for x in both], [parts_of(x) for x in both], groups)


def lines_of(entries, left: str, right: str):
    """(kind, line on the left or None, line on the right or None, rest) of every row."""
    parts, found = (parts_of(left), parts_of(right)), []
    for i, j, rows in entries:
        a = parts[0][i].start if i >= 0 else 0
        b = parts[1][j].start if j >= 0 else 0
        for kind, *rest in rows:
            if kind == APART:
                n, m = rest
                found += [(kind, a + k, None, rest) for k in range(n)]
                found += [(kind, None, b + k, rest) for k in range(m)]
            else:
                n = m = 1 if kind == CHANGED else rest[0]
                found += [(kind, a + k, b + k, rest) for k in range(n)]
            a, b = a + n, b + m
    return found


def kinds(entries) -> set[int]:
    return {row[0] for entry in entries for row in entry[2]}


def rows_by_name(entries, left: str, right: str) -> dict[str, list]:
    parts = parts_of(left), parts_of(right)
    return {
        (parts[1][j] if j >= 0 else parts[0][i]).name: rows for i, j, rows in entries if rows
    }


def assert_nothing_lost(entries, left: str, right: str):
    """Every line of both texts stands in one row, and rows say the truth about their lines."""
    a, b, found = left.splitlines(), right.splitlines(), lines_of(entries, left, right)
    assert sorted(x for _, x, _, _ in found if x is not None) == list(range(len(a)))
    assert sorted(y for _, _, y, _ in found if y is not None) == list(range(len(b)))
    for kind, x, y, rest in found:
        if kind == SAME:
            assert a[x] == b[y]
        elif kind == INDENTED:
            assert a[x] != b[y]
            assert a[x].strip() == b[y].strip()
        elif kind == CHANGED:
            unmarked = []
            for text, marks in ((a[x], rest[0]), (b[y], rest[1])):
                assert marks == sorted(marks)
                for start, end in reversed(list(zip(marks[::2], marks[1::2], strict=True))):
                    assert text[start:end].strip()
                    text = text[:start] + text[end:]
                unmarked.append(re.sub(r"\s+", "", text))
            assert unmarked[0] == unmarked[1]


@pytest.mark.parametrize("name", TEXTS)
def test_parts_cover_a_script_and_are_its_definitions_and_paragraphs(name):
    text = TEXTS[name]
    lines, parts = text.splitlines(), parts_of(text)
    assert [n for p in parts for n in range(p.start, p.end)] == list(range(len(lines)))
    names = [p.name for p in parts]
    assert len(set(names)) == len(names)
    top = re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)
    assert set(top) <= set(names)
    paragraphs = re.findall(r"^ +# ---- ([A-Z ]+) ----$", text, re.MULTILINE)
    assert [n for n in names if n in paragraphs] == paragraphs
    sections = list(dict.fromkeys(p.section for p in parts))
    assert sections == ["Header", "Args", "Networks", "Mathematics", "Training", "Scaffold"]
    for part in parts:
        if part.name in top:
            assert re.match(rf"(def|class) {part.name}\b|@", lines[part.start])


@pytest.mark.parametrize(("left", "right"), [*combinations(TEXTS, 2)])
def test_every_pair_keeps_every_line(left, right):
    entries = aligned(TEXTS[left], TEXTS[right], GROUPS)
    assert_nothing_lost(entries, TEXTS[left], TEXTS[right])
    names = [
        {p.name: n for n, p in enumerate(parts_of(text))}
        for text in (TEXTS[left], TEXTS[right])
    ]
    together = {(i, j) for i, j, _ in entries if i >= 0 and j >= 0}
    for name in names[0].keys() & names[1].keys():  # Args beside Args, gae beside gae
        assert (names[0][name], names[1][name]) in together


def test_a_script_beside_itself_is_identical():
    assert kinds(aligned(TEXTS["ppo"], TEXTS["ppo"])) == {SAME}


def cut(text: str, name: str) -> tuple[str, str]:
    """A text without one of its parts, and the part."""
    lines, part = (
        text.splitlines(keepends=True),
        next(p for p in parts_of(text) if p.name == name),
    )
    return "".join(lines[: part.start] + lines[part.end :]), "".join(
        lines[part.start : part.end]
    )


def insert_before(text: str, name: str, piece: str) -> str:
    lines, part = (
        text.splitlines(keepends=True),
        next(p for p in parts_of(text) if p.name == name),
    )
    return "".join(lines[: part.start]) + piece + "".join(lines[part.start :])


@pytest.mark.parametrize(
    ("name", "before"), [("a2c_loss", "gae"), ("mlp", "a2c_loss"), ("Run.save", "Run.start")]
)
def test_a_moved_function_is_moved_not_deleted_and_added(name, before):
    old = TEXTS["a2c"]
    rest, piece = cut(old, name)
    new = insert_before(rest, before, piece)
    assert new != old
    for left, right in ((old, new), (new, old)):
        entries = aligned(left, right)
        assert_nothing_lost(entries, left, right)
        assert kinds(entries) == {SAME}
        assert [j for _, j, _ in entries] == [*range(len(parts_of(right)))]  # in its order


def test_a_function_that_moved_and_changed_shows_what_changed():
    rest, piece = cut(TEXTS["a2c"], "a2c_loss")
    new = insert_before(rest, "gae", piece.replace("ent_coef * entropy", "2 * entropy"))
    entries = aligned(TEXTS["a2c"], new)
    assert_nothing_lost(entries, TEXTS["a2c"], new)
    assert [row[0] for entry in entries for row in entry[2] if row[0] != SAME] == [CHANGED]


def test_a_renamed_variable_is_marked_alone():
    left = TEXTS["ppo"]
    right = re.sub(r"\bclipped_ratio\b", "bounded", left)
    entries = aligned(left, right)
    assert_nothing_lost(entries, left, right)
    assert kinds(entries) == {SAME, CHANGED}
    a, b = left.splitlines(), right.splitlines()
    changed = [row for row in lines_of(entries, left, right) if row[0] == CHANGED]
    assert len(changed) == sum("clipped_ratio" in line for line in a) > 1
    for _, x, y, (on_left, on_right) in changed:
        for text, marks, word in (
            (a[x], on_left, "clipped_ratio"),
            (b[y], on_right, "bounded"),
        ):
            spans = [list(m.span()) for m in re.finditer(rf"\b{word}\b", text)]
            assert marks == [n for span in spans for n in span]


def test_an_inserted_flag_is_one_new_line():
    flag = "    new_flag: float = 0.5  # what it does, in so many words\n"
    left = TEXTS["ppo"]
    right = left.replace("    clip_coef: float", flag + "    clip_coef: float")
    for pair, one in (((left, right), (APART, 0, 1)), ((right, left), (APART, 1, 0))):
        entries = aligned(*pair)
        assert_nothing_lost(entries, *pair)
        different = {
            name: [row for row in rows if row[0] != SAME]
            for name, rows in rows_by_name(entries, *pair).items()
        }
        assert {name: rows for name, rows in different.items() if rows} == {"Args": [one]}


def test_a_renamed_function_stands_beside_what_it_was():
    left = TEXTS["trpo"]
    right = left.replace("fisher_vector_product", "metric_times")
    entries = aligned(left, right, [["fisher_vector_product", "metric_times"]])
    assert_nothing_lost(entries, left, right)
    rows = rows_by_name(entries, left, right)
    assert "fisher_vector_product" not in rows
    assert {row[0] for row in rows["metric_times"]} == {SAME, CHANGED}


def test_a_name_that_is_assigned_something_else_is_one_changed_line():
    left = TEXTS["a2c"]
    right = left.replace("-(dist.log_prob(actions) * advantages).mean()", "some.thing(else_)")
    entries = aligned(left, right)
    assert_nothing_lost(entries, left, right)
    assert [row[0] for entry in entries for row in entry[2] if row[0] != SAME] == [CHANGED]


def test_counterparts_stand_side_by_side():
    def together(left, right, groups):
        parts = parts_of(TEXTS[left]), parts_of(TEXTS[right])
        entries = aligned(TEXTS[left], TEXTS[right], groups)
        return {(parts[0][i].name, parts[1][j].name) for i, j, _ in entries if i >= 0 <= j}

    assert ("reinforce_loss", "ppo_loss") in together("reinforce", "ppo", GROUPS)
    assert ("reinforce_loss", "ppo_loss") not in together("reinforce", "ppo", ())
    assert ("returns_to_go", "gae") in together("reinforce_baseline", "a2c", GROUPS)
    assert ("leave_one_out", "group_relative") in together("rloo", "grpo", GROUPS)
    assert ("ADVANTAGE", "PREFERENCE") in together("rloo", "dpo", GROUPS)


def test_lines_that_are_only_indented_are_not_changed():
    left = TEXTS["a2c"]
    body = "            loss.backward()\n            stats["
    assert body in left
    right = left.replace(
        "            loss.backward()\n",
        "            if True:\n                loss.backward()\n",
    )
    entries = aligned(left, right)
    assert_nothing_lost(entries, left, right)
    update = rows_by_name(entries, left, right)["UPDATE"]
    assert [row for row in update if row[0] != SAME] == [(APART, 0, 1), (INDENTED, 1)]


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["delete", "double", "swap", "word", "indent"]), st.integers(57, 300)
    ),
    max_size=12,
)


@given(EDITS)
@settings(max_examples=25)
def test_any_edits_keep_every_line(edits):
    left = TEXTS["a2c"]
    lines = left.splitlines()
    for what, n in edits:
        if (
            lines[n].strip().startswith(("@", "class", "def", "with", '"""'))
            or '"""' in lines[n]
        ):
            continue
        if what == "delete" and lines[n].startswith("    #"):
            del lines[n]
        elif what == "double" and re.match(r"    # ?\w", lines[n]):
            lines.insert(n, lines[n])
        elif (
            what == "swap"
            and re.match(r"    \w+: ", lines[n])
            and re.match(r"    \w+: ", lines[n + 1])
        ):
            lines[n : n + 2] = lines[n + 1], lines[n]
        elif what == "word":
            lines[n] = re.sub(r"\bvalues?\b", "worth", lines[n])
    right = "\n".join(lines) + "\n"
    assert_nothing_lost(aligned(left, right), left, right)


@pytest.mark.parametrize(("left", "right"), [*combinations(TEXTS, 2)])
def test_no_mark_begins_or_ends_with_a_blank(left, right):
    a, b = TEXTS[left].splitlines(), TEXTS[right].splitlines()
    found = lines_of(aligned(TEXTS[left], TEXTS[right], GROUPS), TEXTS[left], TEXTS[right])
    for kind, x, y, rest in found:
        for text, marks in ((a[x], rest[0]), (b[y], rest[1])) if kind == CHANGED else ():
            assert not any(text[start].isspace() for start in marks[::2]), text


def with_docstring(text: str) -> str:
    """a2c.py with another docstring of its loss."""
    old = TEXTS["a2c"]
    start = old.index('"""', old.index("def a2c_loss(")) + 3
    return old[:start] + text + old[old.index('"""', start) :]


def test_docstrings_without_a_common_sentence_follow_one_another():
    """Word by word they would look alike; with a common sentence they stand side by side."""
    one, two = "The loss to minimise, of a batch.", "The loss to log, of a batch here."
    apart, beside = [(APART, 1, 0), (APART, 0, 1)], [CHANGED]
    for more, expected in (("", apart), (" Shapes: (batch,).", beside)):
        left, right = with_docstring(one + more), with_docstring(two + more)
        entries = aligned(left, right)
        assert_nothing_lost(entries, left, right)
        rows = rows_by_name(entries, left, right)["a2c_loss"]
        different = [row for row in rows if row[0] != SAME]
        assert [row if row[0] == APART else row[0] for row in different] == expected
