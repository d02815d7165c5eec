"""The report as a Markdown page and as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import json
from collections import Counter
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from .runs import Run

if TYPE_CHECKING:
    from .report import Section


def overview(runs: list[Run]) -> list[str]:
    """What was run, how it ended, and with what: a few sentences."""
    counts = Counter(run.status for run in runs)
    versions = {json.dumps(run.args["versions"]) for run in runs if isinstance(run.args.get("versions"), dict)}
    shown = ["; ".join(f"{name} {version}" for name, version in json.loads(text).items()) for text in sorted(versions)]
    devices = sorted({str(run.args["device"]) for run in runs if "device" in run.args})
    return [
        f"{len(runs)} runs: {counts['done']} done, {counts['failed']} failed, {counts['unfinished']} unfinished. "
        "Only runs that are done enter the numbers; n counts them, and the others stand beside it.",
        f"Device: {', '.join(devices) or 'unknown'}. Versions: {' / '.join(shown) or 'unknown'}.",
    ]


def unsuccessful(runs: list[Run]) -> list[str]:
    """A line for each run that is not done."""
    return [
        f"{run.algorithm} on {run.env_id}, seed {run.seed}: {run.status}{run.reason and ', ' + run.reason}"
        for run in runs
        if run.status != "done"
    ]


def markdown_sections(sections: list[Section]) -> list[str]:
    """The lines of the sections: tables, and figures as links to the PNG files beside the page."""
    lines = []
    for section in sections:
        lines += [f"## {section.title}", ""]
        for figure in section.figures:
            lines += [f"![{figure.stem}]({figure.stem}.png)", "", f"*{figure.caption}*", ""]
        for table in section.tables:
            lines += [f"*{table.caption}*", ""]
            lines += [f"| {' | '.join(table.columns)} |", f"|{' --- |' * len(table.columns)}"]
            lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table.rows]
            lines.append("")
        lines += [note + "\n" for note in section.notes]
    return lines


def markdown_page(title: str, sections: list[Section], runs: list[Run], problems: list[str]) -> str:
    """The report for a README."""
    lines = [f"# {title}", "", *(line + "\n" for line in overview(runs)), *markdown_sections(sections)]
    for heading, items in (("Runs that are not done", unsuccessful(runs)), ("Problems", problems)):
        lines += [f"## {heading}", "", *(f"- {item}" for item in items or ["none"]), ""]
    return "\n".join(lines)


def html_table(caption: str, columns: list[str], rows: list[list[str]]) -> str:
    """A sortable table; cells are HTML."""
    head = "".join(f'<th scope="col"><button type="button">{escape(column)}</button></th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<p class="caption">{escape(caption)}</p><div class="scroll"><table aria-label="{escape(caption)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def runs_table(runs: list[Run]) -> str:
    """Every run with its flags."""
    rows = []
    for run in runs:
        shown = {name: value for name, value in run.args.items() if name not in ("run_dir", "resume")}
        flags = escape(json.dumps(shown, indent=1)) if shown else ""
        value = run.summary.get("eval_return_mean")
        status = run.status + (run.reason and f": {run.reason}")
        rows.append([
            escape(run.env_id), escape(run.algorithm), str(run.seed), escape(status),
            "-" if value is None else f"{value:.{3 if run.is_task else 1}f}",
            f"<details><summary>flags</summary><pre>{flags}</pre></details>" if flags else "-",
        ])  # fmt: skip
    columns = ["environment", "algorithm", "seed", "status", "evaluation", "flags"]
    failed = sum(run.status == "failed" for run in runs)
    return html_table(f"Every run; n = {len(runs)}, {failed} failed.", columns, rows)


def html_page(title: str, sections: list[Section], runs: list[Run], problems: list[str], out: Path) -> str:
    """One page with everything in it: figures as embedded SVG, style and sorting inline."""
    parts = [f"<p>{escape(line)}</p>" for line in overview(runs)]
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        figures = []
        for figure in section.figures:
            image = base64.b64encode((out / f"{figure.stem}.svg").read_bytes()).decode()
            caption = escape(figure.caption)
            figures.append(
                f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{image}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        parts.append(f'<div class="figures">{"".join(figures)}</div>')
        parts += [
            html_table(table.caption, table.columns, [[escape(cell) for cell in row] for row in table.rows])
            for table in section.tables
        ]
        parts += [f"<p>{escape(note)}</p>" for note in section.notes]
    for heading, items in (("Runs that are not done", unsuccessful(runs)), ("Problems", problems)):
        parts.append(f"<h2>{heading}</h2><ul>{''.join(f'<li>{escape(item)}</li>' for item in items or ['none'])}</ul>")
    parts += ["<h2>Every run and its flags</h2>", runs_table(runs)]
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body="\n".join(parts))
