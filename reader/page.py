"""The page: scripts, alignments, notes and figures put into one HTML file."""

import html
import json
import re
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from string import Template
from textwrap import dedent

from math_core import LatexError, LatexToMathML
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

from .align import align
from .figures import ladder, results
from .structure import Part, parts_of

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

HERE = Path(__file__).parent
# Pygments' short names of kinds of tokens that are not shown as their first letter says.
SHOWN = {"sd": "d", "nf": "f", "nc": "f", "nb": "b", "kc": "n", "mi": "n", "mf": "n", "ow": "k"}


class FaultyNotes(ValueError):
    """Notes, or a command line, that cannot work."""


def highlight(text: str) -> list[list[str]]:
    """Each line as [class, text, class, text, ...]; the texts joined are the line."""
    lines = [[]]
    for kind, value in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        name = STANDARD_TYPES[kind]
        name = SHOWN.get(name, name[:1] if name[:1] in "ksc" else "")
        for i, piece in enumerate(value.split("\n")):
            if i:
                lines.append([])
            if piece and lines[-1][-2:-1] == [name]:
                lines[-1][-1] += piece
            elif piece:
                lines[-1] += [name, piece]
    return lines[: len(text.splitlines())]


@cache
def mathml(latex: str, display: bool = False) -> str:
    try:
        return LatexToMathML().convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        raise FaultyNotes(f"notes.toml: {latex}: {error}") from None


def prose(text: str) -> str:
    """Words with `code` and $mathematics$ as HTML."""
    pieces = re.split(r"(`[^`]+`|\$[^$]+\$)", " ".join(text.split()))
    marked = {
        "`": lambda p: f"<code>{html.escape(p[1:-1])}</code>",
        "$": lambda p: mathml(p[1:-1]),
    }
    return "".join(marked.get(p[:1], partial(html.escape, quote=False))(p) for p in pieces)


def note_html(note: dict) -> str:
    """A note as it stands beside the code."""
    parts = [f'<div class="eq">{mathml(x, True)}</div>' for x in note.get("equations", [])]
    if "symbols" in note:
        rows = "".join(
            f"<tr><td>{mathml(symbol)}</td><td>{prose(f'`{name}`')}</td><td>{prose(shape)}</td></tr>"
            for symbol, name, shape in note["symbols"]
        )
        head = "<tr><th>symbol</th><th>variable</th><th>shape or meaning</th></tr>"
        parts.append(f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")
    titles = {"text": "", "why": "<b>Why so.</b> ", "pitfall": "<b>Pitfall.</b> "}
    titles["source"] = "<b>Source.</b> "
    parts += [f"<p>{titles[key]}{prose(note[key])}</p>" for key in titles if key in note]
    return "".join(parts)


def part_text(lines: list[str], part: Part) -> str:
    return dedent("\n".join(lines[part.start : part.end])).strip()


def notes_of(scripts: dict[str, list[str]], parts: dict[str, list[Part]], notes: list[dict]):
    """For each script, the number of each part's note, or -1. A note is keyed by script.part;
    other scripts with the very text of that part share it."""
    texts = {(s, p.name): part_text(scripts[s], p) for s in scripts for p in parts[s]}
    own, shared = {}, {}
    for number, note in enumerate(notes):
        for key in note["at"]:
            place = tuple(key.split(".", 1))
            if place not in texts or place in own:
                raise FaultyNotes(f"notes.toml: {key} is no part of a script, or has two notes")
            own[place] = number
            shared.setdefault((place[1], texts[place]), number)
    return {
        s: [own.get((s, p.name), shared.get((p.name, texts[s, p.name]), -1)) for p in parts[s]]
        for s in scripts
    }


def compared(text: str) -> list[str]:
    """The bullets of "Compared with X.py:" in a script's docstring."""
    found = re.search(r"^Compared with \w+\.py:\n((?:- .*\n|  .*\n)+)", text, re.MULTILINE)
    bullets = re.split(r"^- ", found[1], flags=re.MULTILINE)[1:] if found else []
    return [" ".join(bullet.split()) for bullet in bullets]


def findings(root: Path) -> dict[str, str]:
    """The bullets of the results' README on findings, by their titles in bold; "": of what."""
    path = root / "benchmark/results/README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text.partition("\n## Findings\n")[2])
    found = re.findall(r"^- \*\*(.+?)\.?\*\* ((?:.+\n)(?:  .+\n)*)", text, re.MULTILINE)
    return {"": text.split("\n\n")[0].removesuffix(" Made by"), **dict(found)}


def load(root: Path) -> tuple[dict, dict[str, str]]:
    """The notes, with each script's parent, and the texts of the scripts in the notes' order. A
    script is a file with the banner of the scaffold, its parent what it is compared with."""
    try:
        notes = tomllib.loads((HERE / "notes.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise FaultyNotes(f"notes.toml: {error}") from None
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(root.glob("*.py"))}
    texts = {name: text for name, text in texts.items() if "\n# Scaffold" in text}
    names = [script["name"] for script in notes["script"]]
    for name in sorted({*texts, *names}):
        if name not in texts:
            raise FaultyNotes(f"notes.toml: [[script]] names {name}, but there is no {name}.py")
        if name not in names:
            raise FaultyNotes(f"notes.toml: there is no [[script]] for {name}.py")
    for script in notes["script"]:
        parent = re.search(r"(?m)^Compared with (\w+)\.py:$", texts[script["name"]])
        if parent and parent[1] not in names[: names.index(script["name"])]:
            raise FaultyNotes(f"notes.toml: {script['name']} must stand below {parent[1]}")
        script["parent"] = parent and parent[1]
    return notes, {name: texts[name] for name in names}


def page_data(root: Path) -> dict:
    """All that the page's script draws from."""
    notes, texts = load(root)
    lines = {name: text.splitlines() for name, text in texts.items()}
    parts = {name: parts_of(text) for name, text in texts.items()}
    noted = notes_of(lines, parts, notes["note"])
    table, scripts, known = {}, {}, findings(root)
    for script in notes["script"]:
        name = script["name"]
        keys = [json.dumps(line) for line in highlight(texts[name])]
        scripts[name] = {
            "lines": [table.setdefault(key, len(table)) for key in keys],
            "parts": [[p.name, p.section, p.start, p.end, n]
                      for p, n in zip(parts[name], noted[name], strict=True)],
            "parent": script["parent"], "title": script["title"],
            "bullets": [prose(re.sub(r"\b([a-z]+_[a-z]\w+)\b(?!\.py)", r"`\1`", bullet))
                        for bullet in compared(texts[name])],
            "buys": prose(script.get("buys", "")),
            "findings": [[title, prose(known[title])]
                         for title in script.get("findings", []) if title in known],
        }  # fmt: skip
    pairs = {
        f"{a}..{b}": align(lines[a], lines[b], parts[a], parts[b], notes["counterparts"])
        for a, b in combinations(texts, 2)
    }
    return {
        "lines": [json.loads(key) for key in table], "scripts": scripts, "pairs": pairs,
        "notes": [note_html(note) for note in notes["note"]], "context": prose(known[""]),
        "charts": results(root, notes["results"], list(texts), notes["environments"]),
    }  # fmt: skip


def build(root: Path) -> str:
    """The whole page."""
    data = json.dumps(page_data(root), ensure_ascii=False, separators=(",", ":"))
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    pieces = {x: (HERE / f"page.{x}").read_text(encoding="utf-8") for x in ("css", "js")}
    scripts = load(root)[0]["script"]
    options = "".join(f'<option value="{s["name"]}">{s["name"]}.py</option>' for s in scripts)
    pieces |= {"ladder": ladder(scripts), "data": data.replace("</", "<\\/")}
    return template.substitute(pieces, options='<option value="">none</option>' + options)
