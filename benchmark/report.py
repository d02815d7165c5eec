"""From runs to tables, figures, CSV files, a Markdown page and an HTML page."""

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from . import plots, sensitivity, store
from .captions import Groups, all_runs, cell_counts, coverage_words
from .curves import (
    aggregate_figure,
    efficiency_figure,
    environment_figures,
    profile_figure,
)  # fmt: skip
from .events import read_tags
from .files import read_json, write_atomically
from .grid import ROOT
from .page import Section, html_page, markdown_page
from .prepared import Prepared, prepare, values
from .runs import Run, done, grouped
from .tables import (
    differences_table,
    equal_steps_table,
    improvement_table,
    main_table,
    parity_table,
    return_table,
    runs_table,
    scores_table,
    time_table,
    without_result,
)  # fmt: skip
from .tasks import frontier, with_exact
from .words import BadInput

FEW = 5  # seeds from which an interval is hardly to be trusted


def check_tags(tags: Sequence[str], runs: list[Run]) -> None:
    """Refuse tags under which no run logged anything, naming those there are, by one run of
    each algorithm."""
    ended = done(runs)
    for tag in tags:
        if not any(tag in run.logged for run in ended):
            examples = {run.cell: run for run in ended}.values()
            found = {name for run in examples for name in read_tags(run.directory)}
            found |= {name for run in examples for name in run.logged}
            names = ", ".join(sorted(found)) or "nothing"
            raise BadInput(f"no run that is done logged {tag}; they logged {names}")


# ==============================================================================================
# Sections
# ==============================================================================================
def environment_section(
    env_id: str,
    groups: Groups,
    comparison: str,
    style: dict,
    options: dict,
    tags: Sequence[str],
) -> Section:
    """Tables and figures of one environment; times first where success is known exactly."""
    tables = [return_table(groups, env_id, comparison), time_table(groups, env_id)]
    if equal := equal_steps_table(groups, env_id):
        tables.insert(1, equal)
    figures = environment_figures(env_id, groups, style, options["aggregate"], tags)
    if drawn := frontier(env_id, groups, style):
        figures.append(drawn)
    return Section(env_id, tables[::-1] if with_exact(groups) else tables, figures)


def scores_section(runs: list[Prepared], style: dict) -> Section:
    """Normalised scores, sample efficiency and profiles, side by side for algorithms with the
    same environments. On one environment alone they would say what its own section says."""
    section = Section("Normalised scores")
    tried = grouped([run for run in runs if run.score_range], "algorithm", "env_id")
    tried = {
        name: environments for name, environments in tried.items() if len(environments) > 1
    }
    alike: dict[tuple[str, ...], dict[str, Groups]] = {}
    for name, environments in tried.items():
        alike.setdefault(tuple(environments), {})[name] = environments
    for i, algorithms in enumerate(alike.values()):
        add_scores(section, algorithms, style, f"-{i + 1}" if i else "")
    section.notes += without_result(tried)
    if bare := sorted({run.env_id for run in runs if run.score_range is None}):
        what = "Not in these scores, for want of a score_range in the suite"
        section.notes.append(f"{what}: {', '.join(bare)}.")
    return section


def add_scores(
    section: Section, algorithms: dict[str, Groups], style: dict, suffix: str
) -> None:
    """Add a table and figures of algorithms that ran on the same environments."""
    members = {name: all_runs(environments) for name, environments in algorithms.items()}
    scores = {
        name: [runs[0].score(values(runs, "compared")) for runs in environments.values()]
        for name, environments in algorithms.items()
    }
    counts = cell_counts(all_runs(members))
    section.tables.append(scores_table(scores, members, counts))
    full = {name: groups for name, groups in scores.items() if all(map(len, groups))}
    if not full:
        return
    where = f"over {', '.join(next(iter(algorithms.values())))}"
    section.figures.append(aggregate_figure(full, style, where, counts, f"aggregates{suffix}"))
    curved = {}
    for name in full:
        known = [[run for run in runs if run.common] for runs in algorithms[name].values()]
        if all(known):
            curved[name] = known
    if curved:
        stem = f"efficiency{suffix}"
        section.figures.append(efficiency_figure(curved, members, style, where, stem))
    stem = f"profile{suffix}"
    section.figures.append(profile_figure(full, members, style, where, counts, stem))


def improvement_section(runs: list[Prepared]) -> Section:
    """How probably one algorithm beats another, by the return and by the area."""
    section, environments = Section("Probability of improvement"), grouped(runs, "env_id")
    together = [x for x in environments if len(grouped(environments[x], "algorithm")) > 1]
    if not together:
        section.notes.append("No two algorithms ran on the same environment.")
        return section
    shared = [run for run in runs if run.env_id in together]
    if len(grouped(shared, "algorithm")) > plots.PANELS:
        what = "So many algorithms have too many pairs to be read"
        section.notes.append(f"{what}; report --against NAME compares each with one of them.")
        return section
    section.tables += [improvement_table(shared, key) for key in ("compared", "area")]
    section.notes += without_result(grouped(shared, "algorithm", "env_id"))
    return section


def differences_section(runs: list[Prepared], reference: str) -> Section:
    """By how much the others differ from the reference."""
    table = differences_table(runs, reference)
    notes = [] if table.rows else ["Nothing shares an environment with it."]
    return Section(f"Differences to {reference}", [table], notes=notes)


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
    """Sentences on rows that cannot be made again with the scripts as they lie here: of another
    version, or of a script that was in no commit."""
    here, lines = {}, []
    for folder in (ROOT, ROOT / "benchmark" / "peers"):
        here |= {
            path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.py")
        }
    found = {(str(run.args.get("script")), run.args.get("script_sha256")) for run in runs}
    if others := sorted({name for name, code in found if here.get(name, code) != code}):
        lines.append(f"Rows of another version of {', '.join(others)} than lies here.")
    if dirty := [run for run in runs if (run.record.get("commit") or "").endswith("-dirty")]:
        lines.append(f"Beware: {len(dirty)} rows are of scripts that no commit has.")
    return lines


def conditions(runs: list[Run]) -> list[str]:
    """How far to trust an interval, and what the runs were made with."""
    several = [run.args.get("versions") for run in runs]
    several = [sorted(versions.items()) for versions in several if isinstance(versions, dict)]
    shown = sorted({"; ".join(f"{name} {x}" for name, x in versions) for versions in several})
    devices = sorted({str(run.args["device"]) for run in runs if "device" in run.args})
    for key in ("cpu", "gpu"):
        devices += sorted({str(run.record[key]) for run in runs if run.record.get(key)})
    what = f"Device: {', '.join(devices) or 'unknown'}."
    commits = sorted({run.record["commit"] for run in runs if run.record.get("commit")})
    what += f" Commit: {', '.join(commits)}." if commits else ""
    made = f"{what} Versions: {' / '.join(shown) or 'unknown'}."
    return [line for line in (coverage_words(), made) if line]


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
    if "lacking" in options:  # as the suite `sensitivity` has it; no curves of hundreds of runs
        for run in runs:
            run.points = {}
        prepared, _ = prepare(runs)
        parts = [Section("Summary", notes=conditions(prepared))]
        parts += sensitivity.sections(prepared, options["lacking"], options["aggregate"])
        parts += [not_done_section(prepared), Section("Problems", notes=problems or ["none"])]
        return prepared, parts
    prepared, comparisons = prepare(runs)
    named = [run for run in prepared if run.args.get("script")]
    scripts = {run.algorithm: Path(run.args["script"]).stem for run in named}
    style = plots.styles({run.algorithm for run in prepared}, scripts)
    first = main_table(prepared, options["aggregate"])
    sections = [Section("Summary", [first], notes=conditions(prepared))]
    if options["against"] is not None:
        sections.append(differences_section(prepared, options["against"]))
    if "margin" in options:
        table = parity_table(runs, options["margin"])
        sections.append(Section("Parity", [table]))
    for env_id, groups in grouped(prepared, "env_id", "algorithm").items():
        comparison = comparisons[env_id]
        section = environment_section(env_id, groups, comparison, style, options, tags)
        sections.append(section)
    scores = scores_section(prepared, style)
    sections[0].figures, scores.figures = scores.figures[:2], scores.figures[2:]
    sections += [scores] if scores.tables or scores.notes else []
    sections += [improvement_section(prepared), not_done_section(prepared)]
    return prepared, [*sections, Section("Problems", notes=problems or ["none"])]


def write_report(
    root: Path,
    out: Path,
    aggregate: str | None = None,
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
    options = {"title": root.resolve().name, "aggregate": "iqm", "against": None}
    options |= read_json(root / "report.json") or {}
    given = {"aggregate": aggregate, "against": reference}
    options |= {name: value for name, value in given.items() if value is not None}
    runs, problems = store.load(root, tags or options.pop("log", ()))
    if not runs:
        found = f", only: {problems[0]}" if problems else ""
        what = f"there are no runs in {root}{found}; python -m benchmark run <suite> makes some"
        raise BadInput(what)
    if reference is None and options["against"] not in {run.algorithm for run in runs}:
        options["against"] = None  # of the suite, and not among these runs
    tags = tags or list(dict.fromkeys(tag for run in runs for tag in run.logged))
    check_tags(tags, runs)
    prepared, sections = make_sections(runs, problems, options, tags)
    out.mkdir(parents=True, exist_ok=True)
    for figure in (figure for section in sections for figure in section.figures):
        plots.save(figure.spec, out / figure.stem)
    store.save(out, prepared)
    write_atomically(out / "report.json", json.dumps(options).encode())
    title, intro = f"Benchmark: {options['title']}", notices(prepared)
    write_atomically(out / "report.md", markdown_page(title, intro, sections).encode())
    sections.append(Section("Every run and its flags", [runs_table(prepared)]))
    write_atomically(out / "index.html", html_page(title, intro, sections).encode())
    return runs, problems
