"""From runs to tables, figures, CSV files, a Markdown page and an HTML page."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import plots, sensitivity, store
from .captions import Groups
from .curves import environment_figures
from .files import read_json, write_atomically
from .grid import ROOT
from .machine import runs_same_code
from .page import Section, html_page, markdown_page
from .prepared import Prepared, prepare
from .runs import Run, done, grouped
from .tables import (
    differences_table,
    equal_steps_table,
    main_table,
    paired_table,
    parity_table,
    return_table,
    scores_table,
    time_table,
    without_result,
)  # fmt: skip
from .tasks import frontier, with_exact
from .words import BadInput, did_you_mean

FEW = 5  # seeds from which an interval is hardly to be trusted


# ==============================================================================================
# Sections
# ==============================================================================================
def environment_section(
    env_id: str,
    groups: Groups,
    comparison: str,
    style: dict,
    tags: Sequence[str],
) -> Section:
    """Tables and figures of one environment; times first where success is known exactly."""
    tables = [return_table(groups, env_id, comparison), time_table(groups, env_id)]
    if equal := equal_steps_table(groups, env_id):
        tables.insert(1, equal)
    figures = environment_figures(env_id, groups, style, tags)
    if drawn := frontier(env_id, groups, style):
        figures.append(drawn)
    return Section(env_id, tables[::-1] if with_exact(groups) else tables, figures)


def scores_section(runs: list[Prepared]) -> Section:
    """Normalised scores, side by side for algorithms with the same environments. On one
    environment alone they would say what its own section says."""
    tried = grouped([run for run in runs if run.score_range], "algorithm", "env_id")
    tried = {name: several for name, several in tried.items() if len(several) > 1}
    alike: dict[tuple[str, ...], dict[str, Groups]] = {}
    for name, environments in tried.items():
        alike.setdefault(tuple(environments), {})[name] = environments
    tables, notes = [scores_table(x) for x in alike.values()], without_result(tried)
    begun = [run for run in runs if run.status != "missing"]
    if bare := sorted({run.env_id for run in begun if run.score_range is None}):
        what = "Not in these scores, for want of a score_range in the suite"
        notes.append(f"{what}: {', '.join(bare)}.")
    return Section("Normalised scores", tables, notes=notes)


def differences_section(runs: list[Prepared], reference: str) -> Section:
    """By how much the others differ from the reference: from the same base models, and where
    there are none."""
    if reference not in (tried := sorted({run.algorithm for run in runs})):
        hint = did_you_mean(reference, tried)
        raise BadInput(f"there is no algorithm {reference} to compare with; {hint}")
    tables = [make(runs, reference) for make in (paired_table, differences_table)]
    tables = [table for table in tables if table.rows]
    notes = [] if tables else ["Nothing shares an environment with it."]
    return Section(f"Differences to {reference}", tables, notes=notes)


def notices(runs: list[Run]) -> list[str]:
    """How the runs ended, and what to beware of: a few sentences."""
    counts, ended = Counter(run.status for run in runs), done(runs)
    names = ["done", "failed", "unfinished", "missing"]
    names += ["pruned"] if counts["pruned"] else []
    text = ", ".join(f"{counts[name]} {name}" for name in names)
    what = "Only runs that are done enter the numbers; n counts them."
    lines = [f"{len(runs)} runs: {text}. {what}"]
    if ended and min(map(len, grouped(ended, "cell").values())) <= FEW:
        what = f"some results have {FEW} seeds or fewer, with which intervals tell little"
        lines.append(f"Beware: {what}.")
    lines += of_other_versions(ended)
    cells = grouped([run for run in ended if run.is_task], "cell").values()
    if shared := [cell for cell in cells if len({run.base for run in cell}) < len(cell)]:
        count = max(len({run.base for run in cell}) for cell in shared)
        what = f"{max(map(len, shared))} runs of an algorithm share {count} base model"
        what += "s" if count > 1 else ""
        lines.append(f"Beware: {what}; the intervals say little of other base models.")
    for name, key in (("devices", "device"), ("CPU models", "cpu"), ("GPUs", "gpu")):
        found = {str(run.args.get(key) or run.record.get(key) or "") for run in ended}
        if len(mixed := sorted(found - {""})) > 1:
            what = f"the runs were made on different {name}, so their seconds do not compare"
            lines.append(f"Beware: {what}: {', '.join(mixed)}.")
    return lines


def of_other_versions(runs: list[Run]) -> list[str]:
    """Sentences on rows that cannot be made again with the scripts as they lie here: of other
    code, or of a script that was in no commit."""
    folders, lines = (ROOT, ROOT / "benchmark" / "peers"), []
    here = {path.name: path for folder in folders for path in folder.glob("*.py")}
    others = set()
    for run in runs:
        name, digest = str(run.args.get("script")), run.args.get("script_sha256") or ""
        if name in here and not runs_same_code(
            here[name], digest, run.record.get("commit") or ""
        ):
            others.add(name)
    if others:
        names = ", ".join(sorted(others))
        lines.append(f"Rows of another version of {names} than lies here.")
    if dirty := [run for run in runs if (run.record.get("commit") or "").endswith("-dirty")]:
        lines.append(f"Beware: {len(dirty)} rows are of scripts that no commit has.")
    return lines


def conditions(runs: list[Run]) -> str:
    """What the runs were made with."""
    several = [run.args.get("versions") for run in runs]
    several = [sorted(versions.items()) for versions in several if isinstance(versions, dict)]
    shown = sorted({"; ".join(f"{name} {x}" for name, x in versions) for versions in several})
    devices = sorted({str(run.args["device"]) for run in runs if "device" in run.args})
    for key in ("cpu", "gpu"):
        devices += sorted({str(run.record[key]) for run in runs if run.record.get(key)})
    what = f"Device: {', '.join(devices) or 'unknown'}."
    commits = sorted({run.record["commit"] for run in runs if run.record.get("commit")})
    what += f" Commit: {', '.join(commits)}." if commits else ""
    return f"{what} Versions: {' / '.join(shown) or 'unknown'}."


def not_done_section(runs: list[Run]) -> Section:
    """Every run that is not done, and why."""
    notes = []
    for run in runs:
        if run.status != "done":
            why = f"{run.status}, {run.reason}" if run.reason else run.status
            notes.append(f"{run.algorithm} on {run.env_id}, seed {run.seed}: {why}")
    return Section("Runs that are not done", notes=notes or ["none"])


# ==============================================================================================
# The whole report
# ==============================================================================================
def make_sections(
    runs: list[Run], problems: list[str], options: dict, tags: Sequence[str]
) -> tuple[list[Prepared], list[Section]]:
    """The runs prepared, and all that report.md shows of them."""
    if "lacking" in options:  # as the suite `sensitivity` has it
        prepared, parts = sensitivity.sections(runs, options["lacking"])
        parts = [Section("Summary", notes=[conditions(prepared)]), *parts]
        parts += [not_done_section(prepared), Section("Problems", notes=problems or ["none"])]
        return prepared, parts
    prepared, comparisons = prepare(runs)
    named = [run for run in prepared if run.args.get("script")]
    scripts = {run.algorithm: Path(run.args["script"]).stem for run in named}
    style = plots.styles({run.algorithm for run in prepared}, scripts)
    sections = [Section("Summary", [main_table(prepared)], notes=[conditions(prepared)])]
    if options["against"] is not None:
        sections.append(differences_section(prepared, options["against"]))
    if "margin" in options:
        table = parity_table(runs, options["margin"])
        sections.append(Section("Parity", [table]))
    for env_id, groups in grouped(prepared, "env_id", "algorithm").items():
        comparison = comparisons[env_id]
        sections.append(environment_section(env_id, groups, comparison, style, tags))
    scores = scores_section(prepared)
    sections += [scores] if scores.tables or scores.notes else []
    sections.append(not_done_section(prepared))
    return prepared, [*sections, Section("Problems", notes=problems or ["none"])]


def write_report(
    root: Path,
    out: Path,
    tags: Sequence[str] = (),
    reference: str | None = None,
) -> tuple[list[Run], list[str]]:
    """Report on all runs under `root`, or those of a report there, with what they logged under
    `tags` and differences to the `reference`, into the folder `out`; return the runs and what
    could not be used.

    Writes results.csv, curves.csv, report.json (title and options, which a report made again
    keeps), report.md, index.html and the figures, and logged.csv if there are tags. Raises
    BadInput where there are no runs, no such reference, or no run logged anything under a tag.
    """
    options = {"title": root.resolve().name, "against": None}
    options |= read_json(root / "report.json") or {}
    options |= {} if reference is None else {"against": reference}
    runs, problems = store.load(root, tags or options.pop("log", ()))
    if not runs:
        found = f", only: {problems[0]}" if problems else ""
        what = f"there are no runs in {root}{found}; python -m benchmark run <suite> makes some"
        raise BadInput(what)
    if reference is None and options["against"] not in {run.algorithm for run in runs}:
        options["against"] = None  # of the suite, and not among these runs
    tags = tags or list(dict.fromkeys(tag for run in runs for tag in run.logged))
    for tag in tags:
        if not any(tag in run.logged for run in done(runs)):
            raise BadInput(f"no run that is done logged {tag}")
    prepared, sections = make_sections(runs, problems, options, tags)
    out.mkdir(parents=True, exist_ok=True)
    for figure in (figure for section in sections for figure in section.figures):
        plots.save(figure.spec, out / figure.stem)
    store.save(out, prepared)
    write_atomically(out / "report.json", json.dumps(options).encode())
    title, intro = f"Benchmark: {options['title']}", notices(prepared)
    write_atomically(out / "report.md", markdown_page(title, intro, sections).encode())
    write_atomically(out / "index.html", html_page(title, intro, sections).encode())
    return runs, problems
