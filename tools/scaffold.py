"""Carries the text that sibling scripts share from one of them into the others.

    python tools/scaffold.py --from ppo.py    after an edit of shared text in ppo.py
    python tools/scaffold.py --check          names what differs; status 1 if anything does

A script is a *.py at the root with a banner "# Scaffold". Its units are the metadata, the
banners, the flags of the run, and what stands at the top level under its name, Run method by
method; imports and the docstring belong to none. A unit is one text in all scripts of a family
that have it, except as OWN and VARIANTS say.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN = {"Args", "train", "LIMITS"}  # every script has its own
# Units of more than one text: the scripts that have another than those above them on the
# ladder, with those that share it in one string. It holds for the scripts below them too.
VARIANTS = {
    "flags of the run": ["a3c", "ppo_images"],
    "mlp": ["sac"],
    "Actor": ["ppo_continuous trpo_continuous", "sac", "ppo_images"],
    "Critic": ["ppo_continuous trpo_continuous", "sac", "ppo_images"],
    "reinforce_loss": ["reinforce_baseline"],
    "make_env": ["ppo_continuous trpo_continuous", "ppo_images"],
    "Run.record_step": ["a2c", "a3c"],
}
RULE = re.compile(r"# =+$")  # above and below a banner


def ladder(name: str, texts: dict[str, str]) -> list[str]:
    """The script, its parent (which "Compared with X.py:" names), the parent's parent, ..."""
    found, pattern = [name], re.compile(r"(?m)^Compared with (\w+)\.py:$")
    while (parent := pattern.search(texts.get(found[-1], ""))) and parent[1] not in found:
        found.append(parent[1])
    return found


def find_scripts(root: Path = ROOT) -> dict[str, str]:
    """The text of every script by its name, parents before children."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(root.glob("*.py"))}
    texts = {name: text for name, text in texts.items() if re.search("(?m)^# Scaffold", text)}
    return {name: texts[name] for name in sorted(texts, key=lambda n: len(ladder(n, texts)))}


def family(text: str) -> str:
    """Scripts for control need Gymnasium; the others are for language models."""
    return "control" if "gymnasium" in text.partition('"""')[0] else "language"


def units_of(text: str, file: str = "script") -> dict[str, tuple[int, int]]:
    """For each unit, in order, its first line, counted from 0, and the one behind its last. A
    comment right above a definition belongs to it."""
    lines, body = text.splitlines(), ast.parse(text, file).body
    units = {"metadata": (0, body[0].lineno - 1)}

    def add(name: str, node: ast.stmt, end: int) -> None:
        start = min(n.lineno for n in (node, *getattr(node, "decorator_list", ()))) - 1
        while lines[start - 1].lstrip().startswith("#") and not RULE.match(lines[start - 1]):
            start -= 1
        units[name] = start, end

    for i, line in enumerate(lines[:-2]):
        if RULE.match(line) and RULE.match(lines[i + 2]):
            units["banner " + re.findall(r"\w+", lines[i + 1])[0]] = i, i + 3
        if line.startswith("    # The run: "):
            units["flags of the run"] = i, lines.index("", i)
    for node in body:
        if isinstance(node, ast.Assign | ast.If):
            name = "main" if isinstance(node, ast.If) else ast.unparse(node.targets[0])
            add(name, node, node.end_lineno)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = node.body if node.name == "Run" else []
            methods = [method for method in inner if isinstance(method, ast.FunctionDef)]
            for method in methods:
                add(f"Run.{method.name}", method, method.end_lineno)
            first = units[f"Run.{methods[0].name}"][0] if methods else node.end_lineno
            add(node.name, node, first)
    return {name: units[name] for name in sorted(units.keys() - OWN, key=units.get)}


def variant(unit: str, name: str, texts: dict[str, str]) -> str:
    """The entry of VARIANTS that says which text the script has; "": the common one."""
    pairs = ((s, group) for s in ladder(name, texts) for group in VARIANTS.get(unit, ()))
    return next((group for script, group in pairs if script in group.split()), "")


def shared(texts: dict[str, str]) -> dict[tuple[str, str, str], dict[str, str]]:
    """For each family, unit and variant: the unit's text in each script that has it."""
    found = {}
    for name, text in texts.items():
        lines = text.splitlines(keepends=True)
        for unit, (start, end) in units_of(text, f"{name}.py").items():
            key = family(text), unit, variant(unit, name, texts)
            found.setdefault(key, {})[name] = "".join(lines[start:end])
    return found


def check(root: Path) -> list[str]:
    """A line for each unit of a script that is not what most of its siblings have."""
    faults = []
    for (_, unit, _), found in shared(find_scripts(root)).items():
        usual = Counter(found.values()).most_common(1)[0][0]
        model = next(name for name, text in found.items() if text == usual)
        told = f"{unit} differs from {model}.py's"
        faults += [f"{name}.py: {told}" for name, text in found.items() if text != usual]
    return faults


def carry(root: Path, source: str) -> list[str]:
    """Write the units of `source` into its siblings; a line for each that was another."""
    texts, done = find_scripts(root), []
    if source not in texts:
        raise ValueError(f"there is no script {source}.py; there are {', '.join(texts)}")
    groups = {unit: found for (_, unit, _), found in shared(texts).items() if source in found}
    for name, text in texts.items():
        lines, path = text.splitlines(keepends=True), root / f"{name}.py"
        for unit, span in reversed(units_of(text).items()):
            found = groups.get(unit, {})
            if name in found and found[name] != found[source]:
                lines[slice(*span)] = [found[source]]
                done.append(f"{name}.py: {unit}")
        if "".join(lines) != text:
            path.with_suffix(".part").write_text("".join(lines), encoding="utf-8")
            path.with_suffix(".part").replace(path)  # a kill leaves no half of a script
    return done


def main(words: list[str], root: Path = ROOT) -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.error = lambda text: sys.exit(print(f"error: {text}", file=sys.stderr) or 2)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--from", metavar="SCRIPT.py", dest="source", help="where it stands")
    choice.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(words)
    try:
        lines = check(root) if args.check else carry(root, args.source.removesuffix(".py"))
    except (ValueError, SyntaxError, OSError) as error:
        parser.error(error)
    print("\n".join(lines) or "nothing differs")
    return int(args.check and bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
