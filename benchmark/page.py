"""The report as a Markdown page and as one HTML page that needs no other file and no
network."""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from string import Template

import vl_convert


@dataclass
class Table:
    """A table with its caption. Cells are text: **bold**, and a line break within one is shown
    as such."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass
class Figure:
    """A Vega-Lite specification, which lies in the folder as <stem>.png too."""

    caption: str
    stem: str
    spec: dict


@dataclass
class Section:
    """A heading and what stands under it."""

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def anchor(title: str) -> str:
    """What links to a heading name, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def markdown_page(title: str, intro: list[str], sections: list[Section]) -> str:
    """The report for a README: tables, and figures as links to the PNG files beside the
    page."""
    lines = [f"# {title}", "", *(line + "\n" for line in intro)]
    lines += [" · ".join(f"[{s.title}](#{anchor(s.title)})" for s in sections), ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for table in section.tables:
            rule = f"|{' --- |' * len(table.columns)}"
            lines += [f"*{table.caption}*", "", f"| {' | '.join(table.columns)} |", rule]
            for row in table.rows:
                cells = [cell.replace("|", "\\|").replace("\n", "<br>") for cell in row]
                lines.append(f"| {' | '.join(cells)} |")
            lines.append("")
        for figure in section.figures:
            lines += [f"![{figure.stem}]({figure.stem}.png)", "", f"*{figure.caption}*", ""]
        lines += [*(f"- {note}" for note in section.notes), ""]
    return "\n".join(lines)


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; it takes seconds to make."""
    return vl_convert.javascript_bundle()


def html_cell(text: str) -> str:
    """A cell as HTML."""
    shown = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text)).replace("\n", "<br>")
    # An interval stays in one line.
    return re.sub(r"\[[^]]*, [^]]*\]", r"<span>\g<0></span>", shown)


def html_table(table: Table) -> str:
    """A sortable table."""
    buttons = [f'<button type="button">{escape(column)}</button>' for column in table.columns]
    head = "".join(f'<th scope="col">{button}</th>' for button in buttons)
    rows = ("".join(f"<td>{html_cell(cell)}</td>" for cell in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    label = escape(table.caption)
    return (
        f'<p class="caption">{label}</p><div class="scroll"><table aria-label="{label}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def html_section(section: Section) -> list[str]:
    """A heading, tables, places for the figures, and notes."""
    parts = [f'<h2 id="{anchor(section.title)}">{escape(section.title)}</h2>']
    parts += [html_table(table) for table in section.tables]
    figures = [
        f'<figure><div id="{figure.stem}"></div>'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
        for figure in section.figures
    ]
    parts.append(f'<div class="figures">{"".join(figures)}</div>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    parts.append(f"<ul>{notes}</ul>" if notes else "")
    return parts


def html_page(title: str, intro: list[str], sections: list[Section]) -> str:
    """One page with everything in it: figures that answer to the pointer, style, sorting, and
    the code that draws."""
    parts = [f"<p>{escape(line)}</p>" for line in intro]
    links = [f"<a href=#{anchor(s.title)}>{escape(s.title)}</a>" for s in sections]
    parts.append(f"<nav>{' · '.join(links)}</nav>")
    for section in sections:
        parts += html_section(section)
    specs = {figure.stem: figure.spec for section in sections for figure in section.figures}
    data = json.dumps(specs).replace("<", "\\u003c")
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    body = "\n".join(parts)
    return template.substitute(title=escape(title), body=body, bundle=bundle(), specs=data)
