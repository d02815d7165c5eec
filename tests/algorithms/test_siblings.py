"""The scripts as texts: self-contained, true to their headers, and identical where they mean
the same."""

import ast
import re
import sys
from difflib import unified_diff
from itertools import pairwise

import pytest
import tomllib
from helpers import EVERY, LM_SCRIPTS, PARENTS, ROOT, SCRIPTS, SOURCES, fields, module
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import scaffold

SOME = {
    "Breakout",
    "GAMES",
    "area",
    "Atari",
}  # units of the scaffold that not every script of a family has
BANNERS = ["Networks", "Mathematics", "Training", "Scaffold"]
# Of the run's flags, those that a script has a text of its own for.
OWN_HELP = {("a3c", "seed"), ("a3c", "device"), ("ppo_images", "torch_threads")}

every = pytest.mark.parametrize("script", EVERY)
families = pytest.mark.parametrize("family", [SCRIPTS, LM_SCRIPTS], ids=["control", "language"])


def top_level(name: str) -> dict[str, str]:
    """The source of every top-level function and class of a script."""
    nodes = [
        n
        for n in ast.parse(SOURCES[name]).body
        if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]
    lines = SOURCES[name].splitlines()
    start = {n: min([n.lineno, *(d.lineno for d in n.decorator_list)]) - 1 for n in nodes}
    return {n.name: "\n".join(lines[start[n] : n.end_lineno]) for n in nodes}


def imported(name: str) -> set[str]:
    """The distributions that a script imports from, the standard library left out."""
    modules = set()
    for node in ast.walk(ast.parse(SOURCES[name])):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            modules.add(node.module)
    found = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names)
    if "torch.utils.tensorboard" in modules:  # which imports the tensorboard package
        found.add("tensorboard")
    return found


def header(name: str) -> dict:
    """The inline script metadata (PEP 723)."""
    match = re.search(r"(?m)^# /// script$\n((?:^#(?: .*)?$\n)+?)^# ///$", SOURCES[name])
    return tomllib.loads("".join(line[2:] for line in match[1].splitlines(keepends=True)))


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_every_script_is_registered():
    """In the places that CONTRIBUTING.md names under "A new script", and nothing else is."""
    places = {
        "reader/notes.toml": r'(?m)^\[\[script\]\]\nname = "(\w+)"$',
        "the ladder of README.md": r"(?m)^\| `(\w+)\.py`.* \|.*\|.*\|$",
    }
    lacking = []
    for place, pattern in places.items():
        text = (ROOT / place.split()[-1]).read_text(encoding="utf-8")
        text = text.partition("\n## The ladder\n")[2].partition("\n## ")[0] or text
        named = re.findall(pattern, text)
        lacking += [f"{name}.py is missing in {place}" for name in EVERY if name not in named]
        lacking += [f"{place} names {name}.py" for name in named if name not in EVERY]
    assert not lacking, f"{'; '.join(lacking)}: see CONTRIBUTING.md"


@every
def test_imports_nothing_of_ours_and_only_what_the_header_names(script):
    named = {
        canonicalize_name(Requirement(line).name) for line in header(script)["dependencies"]
    }
    assert imported(script) == named
    assert not imported(script) & {*EVERY, "benchmark", "tests"}


@every
def test_the_header_agrees_with_the_requirements(script):
    """The same packages, and what requirements.txt pins satisfies the header's bounds."""
    listed = requirements()
    named = {
        canonicalize_name(Requirement(line).name): Requirement(line)
        for line in header(script)["dependencies"]
    }
    assert set(named) <= set(listed)
    assert script in LM_SCRIPTS or set(named) == set(listed)
    for name, requirement in listed.items():
        if name not in named:
            continue
        for specifier in requirement.specifier:
            if specifier.operator in ("==", ">="):
                assert named[name].specifier.contains(specifier.version), (
                    f"{requirement} against {named[name]}"
                )


@every
def test_banners_in_the_same_order(script):
    found = re.findall(r"(?m)^# =+\n# (\w+).*\n# =+$", SOURCES[script])
    assert found == BANNERS
    paragraphs = re.findall(r"# ---- (.+) ----", SOURCES[script])
    expected = ["ROLLOUT", "ADVANTAGE", "UPDATE", "LOG"]
    if script == "dpo":  # which has preferences in place of advantages
        expected[1] = "PREFERENCE"
    if script == "sac":  # which fits critics to targets and has no advantages
        expected[1] = "TARGET"
    if script == "ppo_rlhf":
        expected.insert(0, "REWARD MODEL")
    assert paragraphs == expected


def test_what_siblings_share_is_one_text():
    """`python tools/scaffold.py --check`, as test_scaffold.py tests it."""
    assert scaffold.check(ROOT) == []


@families
def test_the_check_looks_at_what_must_be_shared(family):
    """Below the scaffold's banner nothing but blank lines, and LIMITS, is outside of
    units, which stand in one order."""
    found = {}
    for (_, unit, _), texts in scaffold.shared({n: SOURCES[n] for n in family}).items():
        found.setdefault(unit, set()).update(texts)
    everywhere = {unit for unit, names in found.items() if names == set(family)}
    several = {unit for unit, names in found.items() if len(names) > 1}
    usual = {"metadata", "flags of the run", "BadInput", "check_args", "evaluate"}
    usual |= {"main", "Run", *(f"banner {name}" for name in BANNERS)}
    usual |= {f"Run.{name}" for name in ("start", "save", "record_step", "record_iteration")}
    if family is LM_SCRIPTS:
        usual |= {"GPT", "sample", "log_policy", "completion_mask", "Task"}
        assert several >= {"reinforce_loss", "prefer"}
    else:
        usual |= {"make_env", "Actor"}
        assert several >= {"mlp", "gae", "returns_to_go", "a2c_loss", "RunningNorm"}
        assert several >= {"flatten", "rescale_actions"}
    assert usual <= everywhere
    orders = []
    for name in family:
        text = re.sub(r"(?ms)^LIMITS = \{.*?^\}.*?$", "", SOURCES[name])
        lines, units = text.splitlines(), scaffold.units_of(text)
        first = units["banner Scaffold"][0]
        inside = {n for start, end in units.values() for n in range(start, end)}
        assert not "".join(lines[n] for n in range(first, len(lines)) if n not in inside)
        orders.append([unit for unit, (start, _) in units.items() if start >= first])
    assert set().union(*orders) <= everywhere | SOME
    for one, other in pairwise(orders):
        assert [u for u in one if u in other] == [u for u in other if u in one]


def test_every_variant_is_one():
    """Of scripts that are there, and not the common text again."""
    texts = scaffold.shared(SOURCES)
    for unit, groups in scaffold.VARIANTS.items():
        for group in groups:
            assert set(group.split()) <= set(EVERY)
            for kind in ("control", "language"):
                own = set(texts.get((kind, unit, group), {}).values())
                assert not own & set(texts.get((kind, unit, ""), {}).values()), (unit, group)


def test_box_scripts_make_environments_as_the_others_do():
    """Except for the kind of actions, in the last lines."""
    old, new = (top_level(name)["make_env"].splitlines() for name in ("ppo", "ppo_continuous"))
    assert old[:-4] == new[:-6]
    assert "Discrete(n)" in old[-3]
    assert "rescale_actions(env)" in new[-1]


def test_the_limits_are_of_flags_of_their_own_file():
    """Right below Args; and a flag of two scripts has the same limits in both."""
    seen = {}
    for name in SCRIPTS:
        limits = module(name).LIMITS
        below = SOURCES[name].split("class Args:")[1].split("\n\n\n")[1]
        assert below.startswith("LIMITS = {")
        assert limits.keys() <= fields(name)
        for flag in fields(name):
            own = limits.get(flag)
            assert seen.setdefault(flag, own) == own, f"{flag} in {name}.py"


@families
def test_flags_with_one_name_have_one_help(family):
    """The same words for the same flag, unless the algorithm gives it another meaning."""
    differ = {
        "learning_rate",
        "norm_adv",
        "gae_lambda",
        "num_envs",
        "num_minibatches",
        "n_critic_updates",
        "env_id",
    }
    differ |= {"num_steps"}  # of all environments, or of one worker in A3C
    differ |= {"total_timesteps"}  # REINFORCE needs whole episodes, the others whole batches
    differ |= {"target_kl"}  # a bound on each step in TRPO, a reason to stop early in PPO
    if family is LM_SCRIPTS:
        differ = {
            "batch_size",  # of groups or not
            "kl_coef",  # in the reward or in the loss
            "update_epochs",  # which GRPO has another name for in TRL
        }
    seen = {}
    for name in family:
        for field, text in re.findall(
            r"(?m)^    (\w+): .*? = .*?  # (.*)$", top_level(name)["Args"]
        ):
            if field not in differ and (name, field) not in OWN_HELP:
                assert seen.setdefault(field, text) == text, f"the help of {field} in {name}.py"


@families
def test_the_flags_of_the_run_are_the_same(family):
    """Names, order, values and texts. Those in OWN_HELP have another text, and ppo_images.py
    another value."""
    runs = {}
    for name in family:
        block = top_level(name)["Args"].partition("    # The run: ")[2].partition("\n\n")[0]
        flags = dict(line.strip().split(": ", 1) for line in block.splitlines()[1:])
        runs[name] = flags
    usual = runs[family[0]]
    for name, flags in runs.items():
        assert [*flags] == [*usual]
        for flag, text in flags.items():
            if (name, flag) not in OWN_HELP:
                assert text == usual[flag], f"{flag} of {name}.py"
            elif name != "ppo_images":
                assert text.partition("  #")[0] == usual[flag].partition("  #")[0]


@every
def test_every_flag_has_an_effect(script):
    """Each field of Args is read somewhere."""
    source = SOURCES[script]
    for field in re.findall(r"(?m)^    (\w+): .*? = ", top_level(script)["Args"]):
        assert re.search(rf"args\.{field}\b", source), f"--{field} is never read"


@every
def test_each_names_a_sibling_that_is_there(script):
    """All but the first, from which everyone descends."""
    assert PARENTS[script] in (EVERY if script != "reinforce" else [None])
    assert scaffold.ladder(script, SOURCES)[-1] == "reinforce"


@every
def test_every_flag_is_one_line_with_its_help(script):
    """One line a field, as its help is that line's comment. A3C has one property besides,
    because the scaffold asks for the number of environments."""
    body = top_level(script)["Args"].split("class Args:\n")[1]
    if script == "a3c":
        number = ["    @property", "    def num_envs(self) -> int:"]
        number.append("        return self.num_workers")
        body, *rest = body.split("\n".join(["", "", *number]))
        assert rest == [""]
    for line in filter(None, body.splitlines()):
        assert re.match(r"    (#|\w+: .+ = \S+  # )", line), line


def test_box_actions_change_trpo_as_they_change_ppo():
    """Below the flags, `diff trpo.py trpo_continuous.py` adds and removes the lines that
    `diff ppo.py ppo_continuous.py` does, and nothing else."""

    def changed(older: str, younger: str) -> list[str]:
        below = [
            SOURCES[name].split("# Networks\n")[1].splitlines() for name in (older, younger)
        ]
        lines = list(unified_diff(*below, n=0, lineterm=""))[2:]
        return [line for line in lines if not line.startswith("@@")]

    ours = changed("trpo", "trpo_continuous")
    assert len(ours) > 80
    theirs = changed("ppo", "ppo_continuous")
    assert sorted(ours) == sorted(theirs)


@every
def test_lines_fit_and_no_leftovers(script):
    """Two files side by side fit on 200 columns."""
    too_long = [line for line in SOURCES[script].splitlines() if len(line) > 96]
    assert not too_long
    assert not re.search(r"TODO|FIXME|XXX|breakpoint\(|print\(f?\"debug", SOURCES[script])


@every
def test_no_script_imports_another(script):
    """Not even within a function."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[script])):
        names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
        names.append(getattr(node, "module", None) or "")
        found |= {name.split(".")[0] for name in names}
    assert not found & {*EVERY}
    calls = r"(import_module|__import__|exec|runpy)\(.*\b(%s)\b"
    assert not re.search(calls % "|".join(EVERY), SOURCES[script])
