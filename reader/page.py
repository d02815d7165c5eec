"""The page: scripts, alignments, notes and figures put into one HTML file."""

import base64
import html
import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from string import Template
from textwrap import dedent

from math_core import LatexError, LatexToMathML
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

from benchmark.grid import tomllib  # tomli's on Python 3.10
from benchmark.variants import script_defaults
from benchmark.words import BadInput

from .align import align
from .figures import results
from .structure import Part, parts_of

HERE = Path(__file__).parent
# Pygments' short names of kinds of tokens that are not shown as their first letter says.
SHOWN = {"sd": "d", "nf": "f", "nc": "f", "nb": "b", "kc": "n", "mi": "n", "mf": "n", "ow": "k"}


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


# ---- Mathematics and prose ----
@cache
def mathml(latex: str, display: bool = False) -> str:
    try:
        text = LatexToMathML().convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        raise BadInput(f"notes.toml: {latex}: {error}") from None
    return text.replace("\ufe00", "")  # a form of script letters that the font has as theirs


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


def pieces_of(latex: str) -> list[str]:
    """An equation cut where a line may break: at wide spaces, and before a + or - outside of
    all brackets, which keeps the spaces of a sign between two terms."""
    pieces, depth = [""], 0
    for token in re.split(r"(\\qquad|\\[{}]|[][{}()]| [+-] )", latex):
        depth += (token in ("{", "(", "[", r"\{")) - (token in ("}", ")", "]", r"\}"))
        sign = token in (" + ", " - ") and "=" in "".join(pieces)
        if depth == 0 and (sign or token == r"\qquad"):
            pieces.append("{}" + token if sign else "")
        else:
            pieces[-1] += token
    return [piece for piece in pieces if piece.strip()]


def equation(latex: str, symbols: list[list[str]] = ()) -> str:
    """A displayed equation; each symbol in it is in a group that names its variable. The base
    of an index is no symbol: r is not in r_t."""
    known = {re.sub("</?math>", "", mathml(symbol)): name for symbol, name, _ in symbols}
    pieces = [("<wbr>" if piece.startswith("{}") else "<wbr>&emsp;") + mathml(piece, True)
              for piece in pieces_of(latex)]  # fmt: skip
    text = "".join(pieces).removeprefix("<wbr>&emsp;")
    if known:
        longest = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        text = re.sub(
            f"(?<!<msub>)(?<!<msubsup>)(?:{longest})",
            lambda m: f'<mrow class="v" data-v="{known[m[0]]}">{m[0]}</mrow>',
            text,
        )
    return f'<div class="eq">{text}</div>'


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
    texts = {"": note.get("text"), "<b>Why so.</b> ": note.get("why"),
             "<b>Pitfall.</b> ": note.get("pitfall"), "<b>Source.</b> ": source}  # fmt: skip
    parts += [f"<p>{title}{prose(text)}</p>" for title, text in texts.items() if text]
    return "".join(parts)


# ---- The scripts, and what is said of them ----
def read_toml(name: str) -> dict:
    try:
        return tomllib.loads((HERE / name).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{name}: {error}") from None


def load(root: Path) -> tuple[dict, dict[str, str]]:
    """The notes, with each script's parent, which it is compared with; and the texts of the
    scripts in the notes' order."""
    notes, texts = read_toml("notes.toml"), {}
    for script in notes["script"]:
        text = (root / f"{script['name']}.py").read_text(encoding="utf-8")
        parent = re.search(r"(?m)^Compared with (\w+)\.py:$", text)
        script["parent"] = parent and parent[1]
        texts[script["name"]] = text
    for path in root.glob("*.py"):
        if path.stem not in texts:
            raise BadInput(f"notes.toml: there is no [[script]] for {path.name}")
    return notes, texts


def part_text(lines: list[str], part: Part) -> str:
    return dedent("\n".join(lines[part.start : part.end])).strip()


def notes_of(scripts: dict[str, list[str]], parts: dict[str, list[Part]], notes: list[dict]):
    """For each script, the number of each part's note, or -1. A note is keyed by script.part;
    other scripts with the very text of that part share it."""
    texts = {(s, p.name): part_text(scripts[s], p) for s in scripts for p in parts[s]}
    own = {tuple(key.split(".", 1)): n for n, note in enumerate(notes) for key in note["at"]}
    if unknown := own.keys() - texts.keys():
        raise BadInput(f"notes.toml: {'.'.join(min(unknown))} is no part of a script")
    shared = {(place[1], texts[place]): n for place, n in reversed(own.items())}
    return {
        s: [own.get((s, p.name), shared.get((p.name, texts[s, p.name]), -1)) for p in parts[s]]
        for s in scripts
    }


def loss_of(script: dict, parts: list[Part], noted: list[int], notes: dict) -> dict:
    """The function that is a script's loss, its [name, formula] pieces in order, and those of
    what its symbols stand for."""
    losses = notes["counterparts"][0]
    part, n = next(x for x in zip(parts, noted, strict=True) if x[0].name in losses)
    terms = [[name, mathml("{}" * (k > 0) + latex, True)]
             for k, (name, latex) in enumerate(notes["note"][n]["terms"])]  # fmt: skip
    given = [[name, equation(latex)] for name, latex in script.get("given", [])]
    return {"part": part.name, "terms": terms, "given": given}


def page_data(root: Path) -> dict:
    """All that the page's script draws from."""
    notes, texts = load(root)
    lines = {name: text.splitlines() for name, text in texts.items()}
    parts = {name: parts_of(text) for name, text in texts.items()}
    noted = notes_of(lines, parts, notes["note"])
    table, scripts = {}, {}  # table: each line once, which halves the page
    for script in notes["script"]:
        name = script["name"]
        keys = map(json.dumps, highlight(texts[name]))
        scripts[name] = {
            "lines": [table.setdefault(key, len(table)) for key in keys],
            "parts": [[*p, n] for p, n in zip(parts[name], noted[name], strict=True)],
            "parent": script["parent"], "title": script["title"], "flow": script["flow"],
            "loss": loss_of(script, parts[name], noted[name], notes),
            "change": prose(script["change"]), "curve": prose(script.get("curve", "")),
        }  # fmt: skip
    pairs = {
        f"{a}..{b}": align([lines[a], lines[b]], [parts[a], parts[b]], notes["counterparts"])
        for a, b in combinations(texts, 2)
    }
    charts = results(root, notes["results"], list(texts), notes["environments"])
    for name, run in (item for chart in charts.values() for item in chart["scripts"].items()):
        usual = script_defaults(root / f"{name}.py")  # an older script had others
        run["flags"] = {x: [v, v == usual[x]] for x, v in run["flags"].items()
                        if x in usual and (type(v), type(usual[x])) != (bool, str)}  # fmt: skip
    return {
        "lines": [json.loads(key) for key in table], "scripts": scripts, "pairs": pairs,
        "charts": charts, "groups": notes["counterparts"],
        "notes": [note_html(note, notes["papers"]) for note in notes["note"]],
        "variables": [[s[1] for s in note.get("symbols", [])] for note in notes["note"]],
        "changes": {"..".join(pair["names"]): prose(pair["change"]) for pair in notes["pair"]},
    }  # fmt: skip


# ---- The essay, and the whole ----
def paragraph(text: str, stills: dict[str, str]) -> str:
    """A paragraph of the essay: prose, a displayed equation, a list, a figure, or a pair."""
    if text.startswith("$$"):
        return equation(text.strip("$ \n"))
    if found := re.fullmatch(r"\{play (\w+)\}", text):
        still = stills[found[1]]
        title, caption = (re.search(f"<{x}>(.*?)</{x}>", still)[1] for x in ("title", "desc"))
        figure = f"<h3>{title}</h3><div>{still}</div><figcaption>{caption}</figcaption>"
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

    contents = sections = ""
    for n, section in enumerate(essay["section"]):
        name, title = section.get("script", n), prose(section["title"])
        contents += f'<li><a href="#/{name}">{title}</a></li>'
        text = body(section["text"])
        sections += f'<section id="part-{name}"><h2>{title}</h2>{text}</section>'
    head = f"<h2>{prose(essay['title'])}</h2>{body(essay['lead'])}"
    return f'{head}<nav aria-label="Contents"><ol>{contents}</ol></nav>{sections}'


def ladder(scripts: list[dict], parent: str | None = None) -> str:
    """The family below a script as a nested list; a name opens the script by its parent."""
    items = ""
    for script in [script for script in scripts if script["parent"] == parent]:
        name, below = script["name"], ladder(scripts, script["name"])
        items += f'<li><a href="#{name}">{name}.py <small>{prose(script["adds"])}</small></a>'
        items += f"<ul>{below}</ul></li>" if below else "</li>"
    return items


def figures_script() -> str:
    """The figures' JavaScript, each with its words and what was recorded for it."""
    paths = [HERE / "play/common.js", *sorted((HERE / "play").glob("[!c]*.js"))]
    script = "".join(path.read_text(encoding="utf-8") for path in paths)
    for figure in read_toml("notes.toml")["figure"]:
        data = HERE / f"play/{figure['name']}.json"
        if data.exists():
            figure["data"] = json.loads(data.read_text(encoding="utf-8"))
        text = json.dumps(figure, ensure_ascii=False, separators=(",", ":"))
        script += f"Object.assign(play.{figure['name']}, {text});\n"
    return script


def build(root: Path) -> str:
    """The whole page."""
    read = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("page.*")}
    data = json.dumps(page_data(root), ensure_ascii=False, separators=(",", ":"))
    font = base64.b64encode((HERE / "math.woff2").read_bytes()).decode()
    stills = {path.stem: path.read_text(encoding="utf-8") for path in HERE.glob("play/*.svg")}
    scripts = load(root)[0]["script"]
    options = "".join(f'<option value="{s["name"]}">{s["name"]}.py</option>' for s in scripts)
    return Template(read["page.html"]).substitute(
        css=read["page.css"].replace("FONT", f"data:font/woff2;base64,{font}"),
        ladder=ladder(scripts), options=options, essay=essay_html(stills), js=read["page.js"],
        data=data.replace("</", "<\\/"), play=figures_script(),
    )  # fmt: skip
