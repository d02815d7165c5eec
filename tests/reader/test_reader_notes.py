"""The notes: keys name code, all mathematics has a note, symbols are in formula and code."""

import ast
import re
from pathlib import Path

import pytest

from benchmark.words import BadInput
from reader.page import load, mathml, notes_of, part_text
from reader.structure import parts_of

ROOT = Path(__file__).resolve().parents[2]
NOTES, TEXTS = load(ROOT)
LINES = {name: text.splitlines() for name, text in TEXTS.items()}
PARTS = {name: parts_of(text) for name, text in TEXTS.items()}
NUMBERS = notes_of(LINES, PARTS, NOTES["note"])
GREEK = {
    "alpha",
    "beta",
    "gamma",
    "delta",
    "lambda",
    "theta",
    "phi",
    "pi",
    "mu",
    "sigma",
    "tau",
}


def noted():
    """(script, part, note) of every part that has a note, its own or a shared one."""
    for script, numbers in NUMBERS.items():
        for part, number in zip(PARTS[script], numbers, strict=True):
            if number >= 0:
                yield script, part, NOTES["note"][number]


def source_of(script, part) -> str:
    return "\n".join(LINES[script][part.start : part.end])


def test_every_step_of_the_ladder_says_what_it_adds():
    """Its edges are what the docstrings compare with."""
    for script in NOTES["script"]:
        assert script["title"]
        assert script["adds"]
        if script["parent"]:
            assert f"Compared with {script['parent']}.py:" in TEXTS[script["name"]]
        else:
            assert script["name"] == "reinforce"


def test_scripts_and_their_entries_belong_together():
    """A script is a file with the banner of the scaffold; its parent stands above it."""
    found = {path.stem for path in ROOT.glob("*.py") if "\n# Scaffold" in path.read_text()}
    names = [script["name"] for script in NOTES["script"]]
    assert sorted(names) == sorted(found)
    for script in NOTES["script"]:
        assert script["parent"] in [None, *names[: names.index(script["name"])]]


def test_every_key_names_existing_code_once():
    keys = [key for note in NOTES["note"] for key in note["at"]]
    assert len(keys) == len({*keys})
    for key in keys:
        script, name = key.split(".", 1)
        assert name in [p.name for p in PARTS[script]], key


def test_all_mathematics_and_all_paragraphs_of_the_loop_have_a_note():
    missing = []
    for script, parts in PARTS.items():
        for part, number in zip(parts, NUMBERS[script], strict=True):
            function = part.section == "Mathematics" and part.name != "Mathematics"
            paragraph = (
                part.section == "Training" and part.name.isupper() and part.name != "SETUP"
            )
            if (function or paragraph) and number < 0:
                missing.append(f"{script}.{part.name}")
    assert not missing


def test_scripts_with_the_same_text_share_a_note_and_others_do_not():
    by_text = {}
    for script, part, note in noted():
        key = part.name, part_text(LINES[script], part)
        assert by_text.setdefault(key, note) is note
        own = f"{script}.{part.name}" in note["at"]
        twins = [k.split(".")[0] for k in note["at"] if k.split(".", 1)[1] == part.name]
        texts = [part_text(LINES[s], p) for s in twins for p in PARTS[s] if p.name == part.name]
        assert own or key[1] in texts


def test_every_symbol_is_in_an_equation_and_its_variable_in_the_code():
    for script, part, note in noted():
        equations = " ".join(note.get("equations", [])).replace(" ", "")
        for symbol, variable, _ in note.get("symbols", []):
            assert symbol.replace(" ", "") in equations, (note["at"], symbol)
            assert re.search(rf"\b{variable}\b", source_of(script, part)), (
                script,
                part.name,
                variable,
            )


def identifiers(script, part) -> set[str]:
    """What the formulas in a function's docstring name: single letters, Greek letters, and the
    function's arguments. Words of prose and of subscripts are left out."""
    node = ast.parse("\n".join(LINES[script][part.start : part.end])).body[0]
    doc = (ast.get_docstring(node) or "").splitlines()
    formulas = " ".join(line for line in doc[1:] if line.startswith("    "))
    formulas = re.sub(r"\^T|'s\b", "", formulas)
    arguments = {arg.arg for arg in node.args.args}
    words = set(re.findall(r"[A-Za-z]\w*", formulas))
    return {w for w in words if w in arguments or w in GREEK or len(w) == 1} - {"a"}


def test_equations_name_what_the_docstrings_formulas_name():
    checked = 0
    for script, part, note in noted():
        if part.section != "Mathematics" or part.name[0].isupper():
            continue
        equations = " ".join(note.get("equations", []))
        known = set(re.findall(r"[A-Za-z]+", equations)) | {
            s[1] for s in note.get("symbols", [])
        }
        wanted = identifiers(script, part)
        assert wanted <= known, (script, part.name, wanted - known)
        checked += len(wanted)
    assert checked > 50


def test_defaults_in_tables_are_the_scripts():
    checked = 0
    for script, _, note in noted():
        for _, variable, shape in note.get("symbols", []):
            claimed = re.match(r"(-?[\d.]+) by default", shape)
            default = re.search(rf"^    {variable}: .*? = (\S+)", TEXTS[script], re.MULTILINE)
            if claimed:
                assert float(claimed[1]) == float(default[1]), (script, variable)
                checked += 1
    assert checked >= 10


def test_flags_and_names_in_backticks_exist():
    """Of the words in backticks that look like names in code, each is one in a script."""
    everything = "\n".join(TEXTS.values())
    for script, _, note in noted():
        prose = " ".join(note.get(k, "") for k in ("text", "why", "pitfall"))
        for name in re.findall(r"`([\w.()/-]+)`", prose):
            word = re.sub(r"^--(no-)?|\(\)$", "", name).replace("-", "_")
            for piece in re.split(r"[./()]+", word.removesuffix(".py")):
                assert re.search(rf"\b{piece}\b", everything) or piece in TEXTS, (script, name)


def test_sections_of_papers_are_those_that_the_scripts_name():
    """A number of a section or an appendix in a source stands in the part's docstring or, for
    paragraphs of the loop, elsewhere in the script, behind the same author."""
    for script, part, note in noted():
        for piece in re.split(r"; ", note.get("source", "")):
            place = re.search(r"\b(sections?|appendix) .*", piece)
            if place:
                text = " ".join(
                    (
                        source_of(script, part)
                        if part.section == "Mathematics"
                        else TEXTS[script]
                    ).split()
                )
                author = piece.split()[0]
                text = re.sub(r"\s+", " ", text)
                assert re.search(rf"{author}[^;]*?{re.escape(place[0])}", text), (
                    note["at"],
                    piece,
                )


def test_every_source_has_an_address():
    """Its own, or one in the table of papers; and no entry there is for nothing."""
    sources = [x for note in NOTES["note"] for x in note.get("source", "").split("; ") if x]
    for source in sources:
        known = any(source.startswith(name) for name in NOTES["papers"])
        assert known or re.search(r"arXiv:\d|https?://|^ours$", source), source
    for name, address in NOTES["papers"].items():
        assert any(source.startswith(name) for source in sources), name
        assert re.match(r"https?://[a-z]", address)
    known = [a.removeprefix("https://arxiv.org/abs/") for a in NOTES["papers"].values()]
    everything = "\n".join(TEXTS.values())
    for number in known:
        if re.fullmatch(r"\d{4}\.\d{5}", number):
            assert f"arXiv:{number}" in everything or number == "1506.02438", number


@pytest.mark.parametrize("note", NOTES["note"], ids=lambda note: note["at"][0])
def test_a_note_says_why_and_what_to_beware_of(note):
    keys = {"at", "equations", "terms", "symbols", "text", "why", "pitfall", "source"}
    assert set(note) <= keys
    assert "why" in note or "text" in note
    assert "pitfall" in note or "why" in note
    assert "equations" in note or "symbols" not in note
    for latex in note.get("equations", []):
        assert mathml(latex, True).startswith("<math")


def test_faulty_notes_are_named():
    with pytest.raises(BadInput, match=r"a2c\.nothing is no part"):
        notes_of(LINES, PARTS, [{"at": ["a2c.nothing"]}])
    with pytest.raises(BadInput, match=r"\\frac"):
        mathml(r"\frac{1}")


def bare(latex: str) -> str:
    return re.sub(r"\s", "", latex)


LOSSES = [note for note in NOTES["note"] if "terms" in note]


def test_every_loss_is_cut_into_terms_and_they_make_up_an_equation():
    losses = NOTES["counterparts"][0]
    for script, part, note in noted():
        assert (part.name in losses) == ("terms" in note), (script, part.name)
    for note in LOSSES:
        joined = bare("".join(latex for _, latex in note["terms"]))
        assert joined in map(bare, note["equations"]), note["at"]
        for _, latex in note["terms"]:
            assert mathml(latex, True).startswith("<math")


def test_terms_of_one_name_and_one_latex_are_those_that_two_losses_share():
    """No two losses name one piece differently, or the page would mark what is equal."""
    names = {}
    for note in LOSSES:
        for name, latex in note["terms"]:
            if name:
                assert names.setdefault(bare(latex), name) == name, latex


def test_every_script_says_how_its_data_flow_and_what_changes():
    for script in NOTES["script"]:
        assert list(script["flow"]) == ["rollout", "advantage", "update"]
        for boxes in script["flow"].values():
            assert 1 <= len(boxes) <= 4
            assert all(0 < len(box) <= 36 for box in boxes), script["name"]
        given = script.get("given", [])
        names = [name for name, _ in given]
        loss = next(
            note for _, part, note in noted() if _ == script["name"] and "terms" in note
        )
        names += [name for name, _ in loss["terms"] if name]
        assert len({*names}) == len(names)
        for _, latex in given:
            assert mathml(latex, True).startswith("<math")


def test_what_changes_is_one_sentence():
    for entry in NOTES["script"] + NOTES["pair"]:
        assert re.fullmatch(r"[A-Z].*[^.]\.", entry["change"])
        assert len(entry["change"]) <= 220, (len(entry["change"]), entry["change"])


def test_pairs_are_named_in_the_order_of_the_ladder_and_are_no_neighbours():
    names, parents = list(TEXTS), {s["name"]: s["parent"] for s in NOTES["script"]}
    for pair in NOTES["pair"]:
        first, second = pair["names"]
        assert names.index(first) < names.index(second)
        assert parents[second] != first
    assert len({tuple(pair["names"]) for pair in NOTES["pair"]}) == len(NOTES["pair"])
