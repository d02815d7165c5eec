"""A script cut into the parts that readers compare; every line belongs to exactly one."""

import ast
import re
from typing import NamedTuple

PARAGRAPH = re.compile(r"\s+# ---- ([A-Z ]+) ----$")
RULE = re.compile(r"# =+$")


class Part(NamedTuple):
    """Lines `start` to before `end`, counted from 0. Paragraphs of a loop have the name of
    their comment, methods that of their class before their own."""

    name: str
    section: str
    start: int
    end: int


def code_start(lines: list[str], node: ast.stmt) -> int:
    """The first line of a definition, with its decorators and the comment right above it."""
    start = min(item.lineno for item in [node, *getattr(node, "decorator_list", [])]) - 1
    while lines[start - 1].lstrip().startswith("#") and not RULE.match(lines[start - 1]):
        start -= 1
    return start


def paragraph_starts(lines: list[str], node: ast.FunctionDef) -> dict[int, str]:
    """Where the paragraphs of a training loop begin. A `with` right above a paragraph's comment
    belongs to it; what precedes the first one, behind the checks of the flags, is SETUP."""
    starts = {}
    for number in range(node.lineno, node.end_lineno):
        if found := PARAGRAPH.match(lines[number]):
            opens = lines[number - 1].lstrip().startswith("with ")
            starts[number - opens] = found[1]
    setup = [s.lineno - 1 for s in node.body if isinstance(s, ast.With)]
    if starts and setup and setup[0] < min(starts):
        starts[setup[0]] = "SETUP"
    return starts


def parts_of(text: str) -> list[Part]:
    """The parts of a script in the order of its lines. A method __init__ belongs to the head of
    its class; statements between definitions belong to what they follow."""
    lines, body = text.splitlines(), ast.parse(text).body
    first_import = next(n for n in body if isinstance(n, ast.Import | ast.ImportFrom))
    starts = {0: "header", first_import.lineno - 1: "imports"}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.If):
            starts[code_start(lines, node)] = getattr(node, "name", "main")
        if isinstance(node, ast.FunctionDef):
            starts |= paragraph_starts(lines, node)
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(method, ast.FunctionDef) and method.name != "__init__":
                starts[code_start(lines, method)] = f"{node.name}.{method.name}"
    sections = {0: "Header", min(n for n, name in starts.items() if name == "Args"): "Args"}
    for number, line in enumerate(lines[:-2]):
        if RULE.match(line) and RULE.match(lines[number + 2]):
            sections[number] = re.match(r"# (\w+)", lines[number + 1])[1]
            starts[number] = sections[number]
    ends = [*sorted(starts)[1:], len(lines)]
    return [
        Part(starts[start], sections[max(n for n in sections if n <= start)], start, end)
        for start, end in zip(sorted(starts), ends, strict=True)
    ]
