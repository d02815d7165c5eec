"""The page: scripts, alignments, notes and figures put into one HTML file."""

import ast
import base64
import html
import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from string import Template
from textwrap import dedent
from xml.etree import ElementTree

from math_core import LatexError, LatexToMathML
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

from .align import align
from .figures import results
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
        text = LatexToMathML().convert_with_local_state(latex, displaystyle=display)
        return text.replace(
            "\ufe00", ""
        )  # a form of script letters that the font has as theirs
    except LatexError as error:
        raise FaultyNotes(f"notes.toml: {latex}: {error}") from None


def prose(text: str) -> str:
    """Words with `code`, $mathematics$, [words](address) and plain addresses as HTML."""

    def typeset(found: re.Match) -> str:
        code, latex, words, to, url, paper = found.groups()
        if code or latex:
            return f"<code>{code}</code>" if code else mathml(html.unescape(latex))
        shown = prose(html.unescape(words)) if words else found[0]
        return f'<a href="{to or url or f"https://arxiv.org/abs/{paper}"}">{shown}</a>'

    kinds = (r"`([^`]+)`", r"\$([^$]+)\$", r"\[([^]]+)\]\(([^)\s]+)\)",
             r"(https?://[^\s,;)]+[\w/])", r"\barXiv:(\d{4}\.\d{5})")  # fmt: skip
    return re.sub("|".join(kinds), typeset, html.escape(" ".join(text.split()), quote=False))


def shape(node: ElementTree.Element) -> tuple:
    """An element without its attributes."""
    return node.tag, node.text, tuple(map(shape, node))


def mark_symbols(node: ElementTree.Element, symbols: list[tuple[list, str]]) -> None:
    """Put each run of children that is a symbol, (shapes, variable), into a group of its own
    that names the variable. The base of an index is none: r is not in r_t."""
    i = int(node.tag in ("msub", "msubsup"))
    while i < len(node):
        for shapes, name in symbols:
            run = node[i : i + len(shapes)]
            row = len(run) == 1 or node.tag in ("math", "mrow", "mtd", "msqrt")
            if row and [*map(shape, run)] == shapes:
                group = ElementTree.Element("mrow", {"class": "v", "data-v": name})
                group.extend(run)
                node[i : i + len(shapes)] = [group]
                break
        else:
            mark_symbols(node[i], symbols)
        i += 1


def pieces_of(latex: str) -> list[str]:
    """An equation cut where a line may break: at wide spaces, and before a + or - outside of
    all brackets, which keeps the spaces of a sign between two terms."""
    pieces, depth = [""], 0
    for token in re.split(r"(\\q?quad\b|\\[{}]|[{}()\[\]]| [+-] )", latex):
        depth += (token in ("{", "(", "[", r"\{")) - (token in ("}", ")", "]", r"\}"))
        if depth == 0 and (
            token == r"\qquad" or (token in (" + ", " - ") and "=" in "".join(pieces))
        ):
            pieces.append("")
        pieces[-1] += (
            "{}" + token
            if token[1:2] in "+-" and token[2:] == " " and not pieces[-1]
            else token
        )
    return [piece.removeprefix(r"\qquad") for piece in pieces if piece.strip()]


def equation(latex: str, symbols: list[list[str]] = ()) -> str:
    """A displayed equation, with the symbols in it marked."""
    known = [([*map(shape, tree(symbol))], name) for symbol, name, _ in symbols]
    known.sort(key=lambda pair: -len(str(pair[0])))
    done = ""
    for piece in pieces_of(latex):
        root = tree(piece, True)
        mark_symbols(root, known)
        done += "<wbr>" * bool(done) + "&emsp;" * (bool(done) and piece[0] != "{")
        done += ElementTree.tostring(root, "unicode")
    return f'<div class="eq">{done}</div>'


def tree(latex: str, display: bool = False) -> ElementTree.Element:
    text = re.sub(r"&(?!lt|gt|amp)\w+;", lambda m: html.unescape(m[0]), mathml(latex, display))
    return ElementTree.fromstring(text)


def note_html(note: dict, papers: dict[str, str]) -> str:
    """A note as it stands beside the code. `papers` are addresses by the names in sources."""
    symbols = note.get("symbols", [])
    parts = [equation(latex, symbols) for latex in note.get("equations", [])]
    if symbols:
        rows = "".join(
            f'<tr><td>{mathml(symbol)}</td><td><button type="button" class="v" '
            f'data-v="{name}">{name}</button></td><td>{prose(means)}</td></tr>'
            for symbol, name, means in symbols
        )
        head = "<tr><th>symbol</th><th>variable</th><th>shape or meaning</th></tr>"
        parts.append(f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")
    source = note.get("source", "")
    if papers and "](" not in source:
        names = "|".join(map(re.escape, sorted(papers, key=len, reverse=True)))
        source = re.sub(names, lambda m: f"[{m[0]}]({papers[m[0]]})", source)
    texts = {"": note.get("text"), "Why so.": note.get("why"),
             "Pitfall.": note.get("pitfall"), "Source.": source}  # fmt: skip
    return "".join(parts) + "".join(
        f"<p>{title and f'<b>{title}</b> '}{prose(text)}</p>"
        for title, text in texts.items()
        if text
    )


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


def read_toml(name: str) -> dict:
    try:
        return tomllib.loads((HERE / name).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise FaultyNotes(f"{name}: {error}") from None


def load(root: Path) -> tuple[dict, dict[str, str]]:
    """The notes, with each script's parent, and the texts of the scripts in the notes' order. A
    script is a file with the banner of the scaffold, its parent what it is compared with."""
    notes = read_toml("notes.toml")
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


def loss_of(script: dict, parts: list[Part], noted: list[int], notes: dict) -> dict:
    """The function that is a script's loss, its [name, formula] pieces in order, and those of
    what its symbols stand for."""
    both = zip(parts, noted, strict=True)
    found = [(p.name, n) for p, n in both if p.name in notes["counterparts"][0]]
    part, note = (found[0][0], notes["note"][found[0][1]]) if found else ("", {})
    terms = note.get("terms") or [["", latex] for latex in note.get("equations", [])[:1]]
    terms = [
        [name, mathml("{}" * (n > 0) + latex, True)] for n, (name, latex) in enumerate(terms)
    ]
    given = [[name, equation(latex)] for name, latex in script.get("given", [])]
    return {"part": part, "terms": terms, "given": given}


def flags_of(charts: dict, texts: dict[str, str]) -> None:
    """Of every run that is shown its flags as [value, whether it is the script's default];
    without those that were switches then and are none now, or the reverse."""
    for name, text in texts.items():
        args = next(n for n in ast.parse(text).body if getattr(n, "name", "") == "Args")
        fields = [n for n in args.body if isinstance(getattr(n, "value", 0), ast.Constant)]
        usual = {n.target.id: n.value.value for n in fields if isinstance(n, ast.AnnAssign)}
        for run in (c["scripts"][name] for c in charts.values() if name in c["scripts"]):
            run["flags"] = {
                x: [v, usual.get(x, v) == v]
                for x, v in run["flags"].items()
                if isinstance(v, bool) == isinstance(usual.get(x, v), bool)
            }


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
            "change": prose(script.get("change", script.get("buys", ""))),
            "loss": loss_of(script, parts[name], noted[name], notes),
            "flow": script.get("flow", {}),
            "curve": prose(script.get("curve", "")),
            "findings": [[title, prose(known[title])]
                         for title in script.get("findings", []) if title in known],
        }  # fmt: skip
    pairs = {
        f"{a}..{b}": align(lines[a], lines[b], parts[a], parts[b], notes["counterparts"])
        for a, b in combinations(texts, 2)
    }
    charts = results(root, notes["results"], list(texts), notes["environments"])
    flags_of(charts, texts)
    return {
        "lines": [json.loads(key) for key in table], "scripts": scripts, "pairs": pairs,
        "notes": [note_html(note, notes.get("papers", {})) for note in notes["note"]],
        "variables": [[s[1] for s in note.get("symbols", [])] for note in notes["note"]],
        "changes": {"..".join(pair["names"]): prose(pair["change"])
                    for pair in notes.get("pair", [])},
        "context": prose(known[""]), "charts": charts, "groups": notes["counterparts"],
    }  # fmt: skip


def paragraph(text: str, stills: dict[str, str]) -> str:
    """A paragraph of the essay: prose, a displayed equation, a list, a figure, or a pair."""
    if text.startswith("$$"):
        return equation(text.strip("$ \n"))
    if found := re.fullmatch(r"\{play (\w+)\}", text):
        still = stills.get(found[1], "")
        words = [re.search(f"<{x}>(.*?)</{x}>", still) for x in ("title", "desc")]
        title, caption = (one[1] if one else "" for one in words)
        figure = f"<h3>{title}</h3>{still}<figcaption>{caption}</figcaption>"
        return f'<figure class="play" data-play="{found[1]}">{figure}</figure>'
    if found := re.fullmatch(r"\{pair (\w+)\.\.(\w+)\}", text):
        a, b = found.groups()
        return f'<p><a class="pair" href="#{a}..{b}">{a}.py beside {b}.py &#8644;</a></p>'
    if text.startswith("- "):
        items = [f"<li>{prose(item)}</li>" for item in re.split(r"(?m)^- ", text)[1:]]
        return f"<ul>{''.join(items)}</ul>"
    return f"<p>{prose(text)}</p>"


def essay_html(stills: dict[str, str]) -> str:
    """What the page says without a pair."""
    essay = read_toml("essay.toml")

    def body(text: str) -> str:
        return "".join(paragraph(one, stills) for one in re.split(r"\n\s*\n", text.strip()))

    parts = [
        (one.get("script", n), prose(one["title"]), body(one["text"]))
        for n, one in enumerate(essay["section"])
    ]
    contents = "".join(f'<li><a href="#/{name}">{title}</a></li>' for name, title, _ in parts)
    return (
        f"<h2>{prose(essay['title'])}</h2>{body(essay['lead'])}"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>'
    ) + "".join(
        f'<section id="part-{name}"><h2>{title}</h2>{text}</section>'
        for name, title, text in parts
    )


def ladder(scripts: list[dict], parent: str | None = None) -> str:
    """The family below a script as a nested list: names open a script, arrows a pair."""
    items = ""
    for script in [script for script in scripts if script["parent"] == parent]:
        name, below = script["name"], ladder(scripts, script["name"])
        edge = f'<a class="edge" href="#{parent}..{name}" title="{parent}.py beside {name}.py">'
        items += f"<li>{(parent and edge + '&#8644;</a>') or ''}"
        items += f'<a href="#{name}">{name}.py <small>{prose(script["adds"])}</small></a>'
        items += f"<ul>{below}</ul></li>" if below else "</li>"
    return items


def build(root: Path) -> str:
    """The whole page."""

    def read(pattern: str) -> dict[str, str]:
        paths = sorted(HERE.glob(pattern), key=lambda path: (path.stem != "common", path))
        return {path.stem: path.read_text(encoding="utf-8") for path in paths}

    data = json.dumps(page_data(root), ensure_ascii=False, separators=(",", ":"))
    font = base64.b64encode((HERE / "math.woff2").read_bytes()).decode()
    css = "".join(read("page.css").values()) + "".join(read("play/*.css").values())
    known = [f"play.{name}.data = {text};\n" for name, text in read("play/*.json").items()]
    scripts = load(root)[0]["script"]
    options = "".join(f'<option value="{s["name"]}">{s["name"]}.py</option>' for s in scripts)
    return Template(read("page.html")["page"]).substitute(
        css=css.replace("FONT", f"data:font/woff2;base64,{font}"), ladder=ladder(scripts),
        essay=essay_html(read("play/*.svg")), data=data.replace("</", "<\\/"),
        play="".join([*read("play/*.js").values(), *known]), js=read("page.js")["page"],
        options='<option value="">none</option>' + options,
    )  # fmt: skip
