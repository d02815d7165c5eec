"""The page in a real browser. Tests that need axe, html-validate or Lighthouse
(tests/reader/package.json) skip without them."""

import csv
import gzip
import html
import importlib
import json
import os
import re
import shutil
import subprocess
import threading
import typing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path

import pytest

from reader.page import build, load
from tools.record import CHROMIUM, FLAGS

ROOT = Path(__file__).resolve().parents[2]
ESSAY = (ROOT / "reader/essay.toml").read_text(encoding="utf-8")
TEXTS = {name: text.splitlines() for name, text in load(ROOT)[1].items()}
PARENTS = {script["name"]: script["parent"] for script in load(ROOT)[0]["script"]}
TOOLS = Path(os.environ.get("PAGE_TOOLS", ROOT / "tests/reader")) / "node_modules"
judged = pytest.mark.skipif(not TOOLS.is_dir(), reason="npm install --prefix tests/reader")


@pytest.fixture
def open_page(new_page):
    """open_page(hash, width, **options) -> a page; at the end no page may have complained, or
    asked for anything but the file."""
    requests = []

    def opened(address="", width=1600, height=900, root: Path = ROOT, **options):
        page = new_page(viewport={"width": width, "height": height}, **options)
        page.on("request", lambda request: requests.append(request.url.split("#")[0]))
        page.goto((root / "reader/index.html").as_uri() + address)
        page.wait_for_function("view.key !== undefined")
        page.add_script_tag(content=(Path(__file__).parent / "probe.js").read_text())
        return page

    yield opened
    assert all(url.endswith("/reader/index.html") or url[:5] == "data:" for url in requests)


def go(page, address: str) -> None:
    page.evaluate("address => { location.hash = address; }", address)
    page.wait_for_function("probe.shows", arg=address)


@pytest.fixture
def page(open_page):
    return open_page()


def test_every_pair_opens_and_both_columns_are_the_files(page):
    page.add_style_tag(content="main { display: none }")  # what is asked needs no layout
    assert page.evaluate("texts => probe.wrongPairs(texts)", TEXTS) == []
    left, right = page.evaluate("location.hash")[1:].split("..")
    assert {left, right} == set(list(TEXTS)[-2:])  # it went through to the last


def test_a_name_alone_opens_the_script_beside_its_parent(page):
    for name, parent in PARENTS.items():
        page.evaluate("name => { location.hash = name; }", name)
        pair = f"#{parent}..{name}" if parent else f"#{name}..reinforce_baseline"
        page.wait_for_function("probe.shows", arg=pair)
        assert page.evaluate(f"probe.column('{'r' if parent else 'l'}')") == TEXTS[name]


def test_every_name_of_the_ladder_opens_the_step_to_it(page):
    links = page.locator("#ladder a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    assert links == [f"#{name}" for name in TEXTS]
    for name, parent in PARENTS.items():
        page.locator(f'#ladder a[href="#{name}"]').dispatch_event("click")
        pair = f"#{parent}..{name}" if parent else f"#{name}..reinforce_baseline"
        page.wait_for_function("probe.shows", arg=pair)


def test_notes_and_the_top_are_there(page):
    go(page, "#a2c..ppo")
    assert page.locator(".note math").count() > 10
    assert page.locator("#top .chart .line").count() >= 6
    legend = page.locator("figcaption p:has(.key)").all_inner_texts()
    assert len(legend) >= 6
    assert all(re.match(r"(a2c|ppo)\.py +-?[\d,.]+ [\[(]", line) for line in legend)


def test_a_link_to_a_folded_part_opens_it(open_page):
    page = open_page("#a2c..ppo/a2c_loss")  # it stands beside ppo_loss
    assert 0 < page.locator("#part-ppo_loss").bounding_box()["y"] < 300
    page = open_page("#a2c..ppo/gae")
    assert page.locator(".side.l > span", has_text="def gae(").is_visible()
    assert page.locator(".fold[open]").count() == 1


def test_a_moved_function_is_shown_once_beside_its_counterpart(open_page, tmp_path):
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / "ppo.py").read_text()
    text = text.replace("# One segment", "# <i>One</i> &amp; segment")  # not HTML
    at, loss = text.index("def gae("), text.index("def ppo_loss(")
    end = text.index("# ====", loss)
    (tmp_path / "ppo.py").write_text(text[:at] + text[loss:end] + text[at:loss] + text[end:])
    (tmp_path / "reader").mkdir()
    (tmp_path / "reader/index.html").write_text(build(tmp_path), encoding="utf-8")
    for address in ("#a2c..ppo", "#ppo..a2c"):
        page = open_page(address, root=tmp_path)
        for side, name in zip("lr", address[1:].split(".."), strict=True):
            lines = (tmp_path / f"{name}.py").read_text().splitlines()
            assert page.evaluate(f"probe.column('{side}')") == lines
        beside = page.locator(".hunk .row:has(.l.changed):has(.r.changed)").all_inner_texts()
        assert any("def a2c_loss(" in row and "def ppo_loss(" in row for row in beside)


def test_a_pair_says_what_changes(page):
    go(page, "#a2c..ppo")
    assert "beyond 1 plus or minus epsilon" in page.locator(".change").inner_text()
    go(page, "#reinforce..sac")  # no sentence of its own: over the steps between them
    steps = page.locator(".change a").all_inner_texts()
    between = ("reinforce_baseline", "a2c", "ppo", "ppo_continuous", "sac")
    assert steps == [f"{x}.py" for x in between]
    go(page, "#trpo..a3c")  # over their common ancestor
    assert page.locator(".change a").all_inner_texts() == ["trpo.py", "a3c.py"]
    page.locator(".change a").first.click()
    page.wait_for_function("probe.shows", arg="#a2c..trpo")
    go(page, "#reinforce..reinforce_lm")
    assert "No environment was run with both" in page.locator("#top").inner_text()


def test_contents_and_titles_lead_to_sections(page):
    links = page.locator("nav[aria-label=Contents] a")
    titles = page.locator(".home section h2").all_text_contents()
    assert links.all_text_contents() == titles
    links.nth(6).click()
    assert 0 < page.locator("#part-ppo h2").bounding_box()["y"] < 300
    go(page, "#rloo..grpo")
    page.evaluate("document.querySelector('#part-grpo_loss').scrollIntoView()")
    link = page.locator("#bar a.r")  # in reach from the code, too
    assert [link.inner_text(), link.get_attribute("title")] == ["why?", "essay"]
    assert 0 <= link.bounding_box()["y"] < 60
    assert "underline" in link.evaluate("a => getComputedStyle(a).textDecorationLine")
    link.click()
    page.wait_for_function("location.hash === '#/grpo'")
    assert 0 < page.locator("#part-grpo h2").bounding_box()["y"] < 300


def test_a_deep_link_opens_its_pair_and_part(open_page):
    page = open_page("#a2c..ppo/gae")
    assert page.locator("#left").input_value() == "a2c"
    assert page.locator("#right").input_value() == "ppo"
    assert page.title() == "a2c and ppo, side by side"
    top = page.locator("#part-gae").bounding_box()["y"]
    bar = page.locator("#bar").bounding_box()
    assert bar["y"] + bar["height"] - 1 <= top < 300  # below the bar, not behind it


@pytest.mark.parametrize(
    "address",
    [
        "#nothing",
        "#a2c..nothing",
        "#..",
        "#a2c..a2c",
        "#%zz",
        "#a2c..ppo/nothing",
        "#constructor",
        "#a2c..toString",
    ],
)
def test_strange_addresses_are_no_fault(open_page, address):
    page = open_page(address)
    known = "a2c" if "ppo" in address else "reinforce_baseline" if "a2c" in address else ""
    assert page.locator("#left").input_value() == known
    assert page.locator("main").inner_text()


def test_back_and_forward_return_to_pair_and_place(page):
    go(page, "#a2c..ppo")
    page.evaluate("scrollTo(0, 1234)")
    page.wait_for_function("history.state?.y === 1234")  # it is noticed a little later
    page.locator("#right").select_option("trpo")
    page.wait_for_function("probe.shows", arg="#a2c..trpo")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.wait_for_function("probe.shows", arg="#a2c..ppo")
    assert page.evaluate("scrollY") == 1234
    page.go_forward()
    page.wait_for_function("probe.shows", arg="#a2c..trpo")


def test_back_to_the_essay_returns_to_the_place_not_to_the_section(page):
    page.locator("nav[aria-label=Contents] a").nth(6).click()
    page.wait_for_function("location.hash === '#/ppo'")
    page.evaluate("document.querySelector('#part-ppo .pair').scrollIntoView()")
    before = page.locator("#part-ppo .pair").bounding_box()["y"]
    page.locator("#part-ppo .pair").click()
    page.wait_for_function("probe.shows", arg="#a2c..ppo")
    page.go_back()
    page.wait_for_function("location.hash === '#/ppo'")
    after = page.locator("#part-ppo .pair").bounding_box()["y"]
    assert after == pytest.approx(before, abs=2)


def test_menus_choose_any_pair(page):
    assert not page.locator("#bar").is_visible()
    go(page, "#a2c..ppo")
    page.locator("#left").select_option("dpo")
    page.wait_for_function("probe.shows", arg="#dpo..ppo")
    page.locator("#right").select_option("reinforce")
    page.wait_for_function("probe.shows", arg="#dpo..reinforce")


SEEN = "all => all.filter(probe.isSeen).length"


def test_fold_and_unfold(page):
    for left, right in combinations(list(TEXTS)[:4], 2):
        go(page, f"#{left}..{right}")
        lines, n = page.locator(".side > span"), len(TEXTS[left]) + len(TEXTS[right])
        few = lines.evaluate_all(SEEN)
        assert 0 < few < 0.7 * n  # scaffolds, a third of a short file, are folded
        page.keyboard.press("f")
        assert lines.evaluate_all(SEEN) == n
        page.keyboard.press("f")
        assert lines.evaluate_all(SEEN) == few
        fold = page.locator("main > .fold:has(> summary:text('without a difference'))").first
        inside = fold.locator(".side.l").count()
        assert f": {inside} lines without" in fold.locator("> summary").inner_text()
        fold.locator("> summary").click()
        assert lines.evaluate_all(SEEN) == few + 2 * inside


def test_what_is_identical_is_folded_and_what_differs_is_not(page):
    go(page, "#a2c..ppo")
    plumbing = page.locator("#part-all-Header, #part-all-Scaffold")
    assert plumbing.count() == 2
    plumbing.evaluate_all("all => all.forEach(fold => fold.remove())")
    assert page.locator(".fold .hunk, .fold .changed, .fold .only").count() == 0
    alike = page.locator("main > .entry:not(:has(.hunk)) .side.l").count()
    assert alike < 20  # the banners of the sections


AT = "probe.hunks().indexOf(document.activeElement)"


def test_keys_step_through_differences_swap_and_can_be_switched_off(page):
    go(page, "#a2c..ppo")
    n = page.evaluate("probe.hunks().length")  # those in the folded scaffold are not counted
    assert 5 < n < page.locator(".hunk").count()
    for expected in (0, 1, 2):
        page.keyboard.press("n")
        assert page.evaluate(AT) == expected
        assert 0 < page.evaluate(f"probe.hunks()[{expected}].getBoundingClientRect().top") < 900
    page.keyboard.press("p")
    assert page.evaluate(AT) == 1
    for _ in range(n + 2):
        page.keyboard.press("n")
    assert page.evaluate(AT) == n - 1
    page.keyboard.press("Control+s")  # the browser's, not ours
    page.keyboard.press("s")
    page.wait_for_function("probe.shows", arg="#ppo..a2c")
    assert page.evaluate("probe.hunks().length") == n
    page.keyboard.press("f")
    assert page.evaluate("probe.hunks().length") == page.locator(".hunk").count()
    page.locator("#keys").uncheck()
    page.keyboard.press("s")
    page.keyboard.press("n")
    assert page.evaluate("location.hash") == "#ppo..a2c"
    assert page.evaluate(AT) == -1
    page.locator("#next").click()
    assert page.evaluate(AT) >= 0


def test_next_and_previous_go_from_where_the_reader_is(page):
    update = "document.querySelector('#part-UPDATE').getBoundingClientRect().top < 300"
    go(page, "#a2c..ppo/UPDATE")
    page.wait_for_function(update)
    below = page.evaluate("probe.hunks().findIndex(h => h.getBoundingClientRect().top > 60)")
    assert below > 3
    page.keyboard.press("n")
    assert page.evaluate(AT) == below
    page.evaluate("scrollTo(0, 0)")  # the reader goes elsewhere, and the focus stays
    page.keyboard.press("n")
    assert page.evaluate(AT) == 0
    page.evaluate("document.querySelector('#part-UPDATE').scrollIntoView()")
    page.wait_for_function(update)
    page.keyboard.press("p")
    assert page.evaluate(AT) == below - 1


def test_the_buttons_step_as_the_keys_do(page):
    """A click must not take the focus from the difference that one has come to."""
    go(page, "#rloo..grpo")
    seen = []
    for button in ("next", "next", "next", "previous"):
        box = page.locator(f"#{button}").bounding_box()
        page.mouse.click(box["x"] + 9, box["y"] + 9)
        seen.append(page.evaluate(AT))
    assert seen == [0, 1, 2, 1]


def test_swap_and_code_only_keep_the_place(page):
    go(page, "#rloo..grpo/group_relative")
    for key, side in (("s", "l"), ("s", "r"), ("c", "r"), ("c", "r")):
        before = page.evaluate("probe.placeOf('group_relative(')")
        assert 0 < before < 900
        page.keyboard.press(key)
        page.wait_for_function("probe.placeOf('group_relative(') !== null")
        assert page.evaluate("probe.placeOf('group_relative(')") == pytest.approx(before, abs=1)
        assert page.locator(f".side.{side} > span", has_text="def group_relative(").is_visible()


def test_code_only_marks_code_alone(page):
    go(page, "#a2c..ppo")
    both = page.evaluate("probe.marked()")
    page.locator("#only").check()
    code = page.evaluate("probe.marked()")
    assert len(code) < 0.75 * len(both)
    assert set(code) < set(both)
    for line in code:
        side, number = line.split(",")
        text = TEXTS["a2c" if side == "l" else "ppo"][int(number)].strip()
        assert text, line
        assert not text.startswith(("#", '"""')), text
    words = page.locator(":is(.c, .d) mark, .side:is(.changed, .only).words")
    assert words.count() > 20
    assert words.evaluate_all("all => all.filter(probe.filled).length") == 0
    signs = "all => all.map(a => getComputedStyle(a, '::after').visibility)"
    assert set(page.locator(".words > a").evaluate_all(signs)) == {"hidden"}
    for _ in range(100):  # to the end: each difference has some of the code that is marked
        page.keyboard.press("n")
        here = page.locator(".hunk:focus .side").evaluate_all("all => all.some(probe.filled)")
        assert here
    assert [page.evaluate(f"probe.column('{side}')") for side in "lr"] == [
        TEXTS["a2c"],
        TEXTS["ppo"],
    ]


def test_no_sign_stands_on_an_empty_line(page):
    for address in ("#a2c..ppo", "#reinforce..dpo"):
        go(page, address)
        signs = page.locator(".side:has(a)").evaluate_all(
            "all => all.map(s => [!s.lastChild.textContent.trim(), s.firstChild.dataset.sign])"
        )
        assert [sign for empty, sign in signs if empty and sign] == []
        assert sum(bool(sign) for _, sign in signs) > 50


def test_swapped_sides_are_mirrored(page):
    def sides(left, right):
        go(page, f"#{left}..{right}")
        return [sorted(page.evaluate(f"probe.summary('{side}')")) for side in "lr"]

    for left, right in [("reinforce", "dpo"), ("trpo", "ppo_continuous"), ("rloo", "grpo")]:
        first, second = sides(left, right), sides(right, left)
        assert first == second[::-1]
    assert any("changed,grpo" in line for line in first[1])


def test_96_columns_fit_at_1600_px(page):
    go(page, "#rloo..ppo_rlhf")
    page.keyboard.press("f")
    assert max(map(len, TEXTS["rloo"] + TEXTS["ppo_rlhf"])) == 96
    assert page.evaluate("probe.tallest()") < 1.5  # no line is broken


def test_banners_are_one_line_where_code_wraps(open_page):
    page = open_page("#a2c..ppo", width=1280, height=800)
    heights = page.locator(".side:visible > span").evaluate_all(
        "all => all.map(e => [/^# =+$/.test(e.textContent), e.clientHeight])"
    )
    banners = {height for banner, height in heights if banner}
    assert banners == {min(height for _, height in heights)}
    assert max(height for _, height in heights) > 1.5 * min(banners)


def test_both_columns_stand_side_by_side_on_a_wide_screen(page):
    go(page, "#a2c..ppo")
    rows = page.evaluate("probe.offsets()")
    assert len(rows) > 50
    assert all(abs(top) < 1 and abs(gap) < 1 for top, gap in rows)


@pytest.mark.parametrize("width", [1000, 400])
def test_a_narrow_screen_has_one_unified_column(open_page, width):
    page = open_page("#a2c..ppo", width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    lefts = page.locator(".side").evaluate_all(
        """all => [...new Set(all.filter(probe.isSeen)
          .map(s => Math.round(s.getBoundingClientRect().left)))]"""
    )
    assert len(lefts) == 1
    assert page.locator(".r.same").evaluate_all(SEEN) == 0  # identical lines stand there once
    orders = page.evaluate("probe.orders()")
    for order in orders:  # first what the left has, then what the right has
        assert order == "l" * order.count("l") + "r" * order.count("r")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["", "#ppo", "#rloo..grpo", "#reinforce_baseline..a2c"])
def test_contrast_of_all_text_is_at_least_4_5(open_page, address, scheme):
    page = open_page(address, color_scheme=scheme)
    page.keyboard.press("f")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    checked, poor = page.evaluate("probe.poorContrast()")
    assert checked > 40
    assert poor == []


def test_focus_is_seen_on_everything_that_takes_it(page):
    go(page, "#a2c..ppo")
    page.evaluate("document.activeElement.blur()")
    seen = set()
    for _ in range(70):
        page.keyboard.press("Tab")
        what, outline, name = page.evaluate("probe.focused()")
        if what != "BODY":
            assert outline, (what, name)
            assert name, what
            seen.add(what.lower())
    assert {"a", "select", "button", "summary", "input"} <= seen


def test_nothing_jumps_while_the_page_opens(open_page):
    page = open_page("#rloo..ppo_rlhf")
    assert page.evaluate("probe.shift()") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints(open_page, scheme):
    page = open_page("#a2c..ppo", color_scheme=scheme)
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 40
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1047, "height": 718})  # A4 landscape without its margins
    assert page.locator("#bar").evaluate("probe.isSeen") is False
    both = page.locator("main > .entry .row:has(.changed.l):has(.changed.r)").first
    left, right = (both.locator(f".{side}").bounding_box() for side in "lr")
    assert left["y"] == right["y"]
    assert right["x"] > left["x"] + 400
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("probe.tallest()") < 1.5  # 96 columns fit on paper too


def test_line_numbers_link_to_the_files(page):
    go(page, "#a2c..ppo")
    links = page.locator(".side.r a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    assert sorted(links) == sorted(f"../ppo.py#L{n + 1}" for n in range(len(TEXTS["ppo"])))
    assert (ROOT / "reader" / links[0].split("#")[0]).resolve() == ROOT / "ppo.py"


def test_links_lead_to_files(page):
    addresses = set()
    for name in list(TEXTS)[1:]:
        go(page, f"#{PARENTS[name]}..{name}")
        addresses |= set(
            page.locator("main a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        )
    for address in addresses:
        if not address.startswith(("#", "https://", "http://")):
            assert (ROOT / "reader" / address.split("#")[0]).resolve().is_file(), address


def test_the_first_screen_has_the_difference_of_every_pair(open_page):
    page = open_page("#a2c..ppo", 1280, 800)
    assert page.evaluate("names => probe.badFirstScreens(names)", list(TEXTS)) == []


def test_losses_differ_by_terms_and_flows_by_boxes(page):
    def coloured(selector):
        return page.locator(selector).evaluate_all("all => all.map(e => e.textContent)")

    go(page, "#a2c..ppo")
    assert coloured(".loss.l .term:is(.l, .r) small") == ["log-probability"]
    ours = coloured(".loss.r .term:is(.l, .r) small")
    assert ours[0] == "minimum of ratio"
    assert len(ours) == 2
    assert {"one step on the whole batch", "RMSprop"} == set(coloured(".flow a.l"))
    assert "epochs of shuffled minibatches" in [
        x.strip() for x in coloured(".flow a.r")
    ] or any("epochs" in x for x in coloured(".flow a.r"))
    assert "GAE (num_steps, num_envs)" in coloured(".flow a:not(.l, .r)")
    page.locator(".flow a", has_text="RMSprop").click()
    page.wait_for_function("location.hash === '#a2c..ppo/UPDATE'")
    assert 0 < page.locator("#part-UPDATE").bounding_box()["y"] < 300
    go(page, "#reinforce_lm..rloo")  # the same loss
    assert coloured(".loss .term:is(.l, .r)") == []
    assert "the same; what enters" in page.locator(".loss.r h3").inner_text()


def test_flags_that_differ_are_those_of_the_runs(page):
    runs = page.evaluate("data.charts['CartPole-v1'].scripts")
    folder = ROOT / "benchmark/results" / runs["a2c"]["folder"]
    with (folder / "results.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["env_id"] == "CartPole-v1"]
    a, b = (
        json.loads(next(r["flags"] for r in rows if r["algorithm"] == x))
        for x in ("a2c", "ppo")
    )
    go(page, "#a2c..ppo")
    caption = page.locator("figure.curves", has_text="CartPole-v1").inner_text()
    caption = caption.replace("\xa0", " ")
    for flag in sorted(a.keys() & b.keys()):
        line = f"--{flag.replace('_', '-')} {json.dumps(a[flag])} / {json.dumps(b[flag])}"
        assert (line.replace(".0 ", " ") in caption.replace(".0 ", " ")) == (
            a[flag] != b[flag]
        ), line
    assert "a2c.py" in caption
    assert f"n = {runs['a2c']['n']}" in caption
    flat = any("saturated" in runs[name]["evaluation"] for name in ("a2c", "ppo"))
    assert ("Saturated: all seeds alike" in caption) == flat
    go(page, "#reinforce..reinforce_baseline")  # a flag that only one has, if it was set
    caption = page.locator("figure.curves", has_text="Acrobot-v1").inner_text()
    flags = page.evaluate("data.charts['Acrobot-v1'].scripts.reinforce.flags.norm_returns")
    assert ("--norm-returns\xa0true" in caption) == (flags == [True, False])


def test_no_flag_is_shown_that_the_script_would_refuse(page):
    charts = page.evaluate("data.charts")
    flags = {(name, flag, json.dumps(run["flags"][flag][0]))
             for chart in charts.values() for name, run in chart["scripts"].items()
             for flag in run["flags"]}  # fmt: skip
    assert len(flags) > 100
    for name, flag, value in flags:
        script = importlib.import_module(name)
        kind, value = typing.get_type_hints(script.Args)[flag], json.loads(value)
        if typing.get_origin(kind) is typing.Literal:
            assert value in typing.get_args(kind), (name, flag, value)
        else:
            fits = kind | int if kind is float else kind
            assert isinstance(value, fits), (name, flag, value)


@pytest.mark.parametrize("width", [1600, 400])
def test_no_flag_is_broken_into_two_lines(open_page, width):
    page = open_page("#a2c..ppo_continuous", width)
    page.keyboard.press("f")
    codes = page.locator(":is(p, li, td) code")
    assert codes.count() > 10
    spaces = codes.evaluate_all("all => all.map(e => getComputedStyle(e).whiteSpace)")
    assert set(spaces) == {"nowrap"}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_bar_is_one_line_of_a_small_screen(open_page):
    page = open_page("#reinforce_baseline..trpo_continuous", 1280)
    assert page.locator("#bar").bounding_box()["height"] < 50


@pytest.mark.parametrize("width", [1600, 1280, 1000, 400])
def test_notes_stand_by_their_code_in_their_column(open_page, width):
    page = open_page("#reinforce_baseline..trpo", width)
    page.keyboard.press("f")
    found = page.evaluate("probe.notes()")
    assert len(found) > 15
    assert [note for note in found if note[1]] == []
    assert {"l", "r", ""} == {note[0] for note in found}


@pytest.mark.parametrize("how", ["mouse", "keyboard", "touch"])
def test_a_symbol_lights_its_variable_in_both_columns_and_the_reverse(open_page, how):
    page = open_page("#a2c..ppo/ppo_loss", has_touch=how == "touch")
    entry = page.locator(".entry:has(.code:has-text('def ppo_loss('))")
    lit = """all => all.map(e => e.closest('.note, .side').classList[1] +
      (e.closest('math') ? 'm' : e.tagName[0]))"""

    def press(element):
        if how == "mouse":
            element.hover()
        elif how == "touch":
            element.tap()
        else:
            element.focus()

    press(entry.locator(".note.r button", has_text="values"))
    shown = entry.locator(".lit").evaluate_all(lit)
    assert {"lm", "lB", "rm", "rB"} <= set(shown), shown  # symbols and variables
    assert {e.strip() for e in entry.locator(".code .lit").all_inner_texts()} == {"values"}
    press(page.locator("#next"))
    assert page.locator(".lit").count() == 0
    button = entry.locator(".note.r button", has_text="values")
    button.scroll_into_view_if_needed()
    if how == "mouse":  # a click on a symbol goes to its code
        button.click()
        code = entry.locator(".code .v[data-v=values]").first.bounding_box()
        assert 300 < code["y"] < 600
        page.mouse.move(code["x"], code["y"] + 300)  # the mark stays, to say where one landed
        page.mouse.move(1590, 890)
        kept = entry.locator(".code .v[data-v=values]").first
        yellow = page.evaluate("probe.colour('--lit')")
        assert kept.evaluate("e => getComputedStyle(e).backgroundColor") == yellow
        page.mouse.click(1590, 890)
        assert kept.evaluate("e => getComputedStyle(e).backgroundColor") != yellow
    if how == "keyboard":
        page.evaluate("document.querySelector('#part-ppo_loss').scrollIntoView()")
        page.keyboard.press("v")
        assert page.evaluate("document.activeElement.matches('.code .v')")
        name = page.evaluate("document.activeElement.dataset.v")
        page.keyboard.press("v")
        page.keyboard.press("Shift+V")
        assert page.evaluate("document.activeElement.dataset.v") == name
    else:
        press(entry.locator(".code .v[data-v=ratio]").first)
        assert entry.locator("math .lit").count() >= 1
    assert entry.locator("button.lit").count() >= 1


def test_nearly_every_variable_of_a_note_is_found_in_its_code(page):
    missing = set()
    for name in list(TEXTS)[1:]:
        go(page, f"#{PARENTS[name]}..{name}")
        missing |= set(page.evaluate("probe.variablesWithoutCode()"))
    assert missing <= {"std", "detach"}  # which are methods there


def test_formulas_have_their_font(open_page):
    """Its letters are those that the licence's file lists; brackets stretch."""
    text = (ROOT / "reader/math-OFL.txt").read_text().replace("\\\n", "")
    known = set()
    for span in re.search(r"--unicodes=(\S+)", text)[1].split(","):
        first, _, last = span.partition("-")
        known |= set(range(int(first, 16), int(last or first, 16) + 1))
    page = open_page("#reinforce..ppo_rlhf")
    page.evaluate("document.fonts.ready.then(() => 0)")
    assert page.evaluate("[...document.fonts].map(f => [f.family, f.status])") == [
        ["Mathematics", "loaded"]
    ]
    data = json.loads(page.locator("#data").text_content())
    math = " ".join(re.findall(r"<math.*?</math>", json.dumps(data, ensure_ascii=False)))
    used = {ord(c) for c in re.sub(r"<[^>]*>|\\n", "", html.unescape(math))}
    assert len(used) > 60
    assert {chr(c) for c in used - known} == set()
    tall, low = page.evaluate("probe.brackets()")
    assert tall > 1.6 * low


def test_published_lines_are_on_github_and_files_otherwise(browser):
    page = browser.new_page()
    body = (ROOT / "reader/index.html").read_text(encoding="utf-8")
    page.route("**/*", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.goto("https://someone.github.io/house/#a2c..ppo")
    links = page.locator("main a").evaluate_all("all => all.map(a => a.href)")
    assert "https://github.com/someone/house/blob/HEAD/ppo.py#L10" in links
    assert (
        "https://github.com/someone/house/blob/HEAD/benchmark/results/classic/report.md"
        in links
    )
    page.goto("http://localhost:1/reader/index.html#a2c..ppo")
    links = page.locator("main a").evaluate_all("all => all.map(a => a.href)")
    assert "http://localhost:1/ppo.py#L10" in links
    page.close()


def test_the_skip_link_is_first_and_leads_to_the_text(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    assert page.locator("#skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("location.hash") == ""


def test_the_ladder_folds_and_opens(page):
    assert page.locator("#ladder").is_visible()
    go(page, "#trpo..ppo")
    assert not page.locator("#ladder").is_visible()
    page.locator("#family summary").click()
    assert page.locator("#ladder").is_visible()
    page.locator("#ladder a", has_text="trpo.py").click()
    page.wait_for_function("probe.shows", arg="#a2c..trpo")
    assert not page.locator("#ladder").is_visible()


def test_names_are_whole_on_a_telephone(open_page):
    page = open_page("#reinforce_baseline..trpo_continuous", 400)
    assert page.evaluate("probe.selectsFit()")


def test_every_figure_of_the_essay_is_drawn_when_it_comes_near(open_page):
    page, names = open_page(), re.findall(r"(?m)^\{play (\w+)\}", ESSAY)
    assert len(names) > 5
    for name in names:
        figure = page.locator(f".home figure[data-play={name}]")
        figure.scroll_into_view_if_needed()
        figure.locator(":is(input, [role=slider])").first.wait_for()
        assert figure.locator("h3").count() == figure.locator("figcaption").count() == 1


def test_figures_stand_by_their_functions(open_page):
    page = open_page("#a2c..ppo/ppo_loss")
    before = page.locator("figure[data-play=ppo]").evaluate(
        "e => e.previousSibling.textContent"
    )
    assert "def ppo_loss(" in before
    page.locator("figure[data-play=ppo] input").first.wait_for()


def test_without_javascript_the_essay_has_still_pictures(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((ROOT / "reader/index.html").as_uri())
    n = len(re.findall(r"(?m)^\{play \w+\}", ESSAY))
    assert page.locator(".home figure.play > div > svg").count() == n
    assert all(page.locator(".home .play figcaption").all_text_contents())
    assert page.locator(".home h2").count() > 10
    context.close()


def test_the_essay_prints_on_10_to_16_pages(open_page):
    pdf = open_page().pdf(prefer_css_page_size=True, print_background=True)
    assert 10 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 16


@judged
@pytest.mark.parametrize("address", ["", "#sac", "#a2c..ppo", "#rloo..dpo"])
def test_axe_finds_nothing(open_page, address):
    """At two widths; in the dark only what depends on colours. Of the lines of a part only the
    first ones, as they are all alike."""
    page = open_page(address)
    page.add_script_tag(path=TOOLS / "axe-core/axe.min.js")
    if address:
        page.keyboard.press("f")
        page.evaluate("probe.shorten()")
    for width in (1600, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("probe.readThrough()")  # figures are drawn when they come near
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = page.evaluate("dark => probe.axe(dark)", scheme == "dark")
            assert len(found["passes"]) > 10 or scheme == "dark"
            assert [
                (width, scheme, rule["id"], node["html"][:150], node["any"][:1])
                for rule in found["violations"]
                for node in rule["nodes"]
            ] == []


@judged
@pytest.mark.parametrize("address", ["", "#a2c..ppo", "#reinforce_lm"])
def test_html_is_valid(open_page, address, tmp_path):
    """The file; and what its script has made of it, as far as browsers write it so."""
    file = ROOT / "reader/index.html"
    rules = {"no-inline-style": "off"}  # of figures that are drawn
    if address:
        file = tmp_path / "page.html"
        content = open_page(address).content()
        file.write_text(re.sub(r"(?s)<script.*?</script>", "", content), encoding="utf-8")
        rules |= dict.fromkeys(
            ["doctype-style", "attribute-boolean-style", "void-style"], "off"
        )
        rules["valid-id"] = ["error", {"relaxed": True}]  # with the dots of methods
    settings = {"root": True, "extends": ["html-validate:recommended"], "rules": rules}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    command = [TOOLS / ".bin/html-validate", "--config", tmp_path / "settings.json", file]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout[:2000]) == (0, "")


class Zipped(BaseHTTPRequestHandler):
    """The page as a server sends it."""

    def do_GET(self):
        body = gzip.compress((ROOT / "reader/index.html").read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@judged
@pytest.mark.parametrize("address", ["", "#a2c..ppo"])
def test_lighthouse(address, tmp_path):
    """Accessibility 100. Of the page without a pair also performance over 90, where nothing
    else runs: it is a matter of time, so only if LIGHTHOUSE_PERFORMANCE is set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Zipped)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    report = tmp_path / "report.json"
    url = f"http://127.0.0.1:{server.server_port}/{address}"
    command = [TOOLS / ".bin/lighthouse", url, "--quiet", "--output=json"]
    command += ["--only-categories=accessibility,performance", f"--output-path={report}"]
    command += [f"--chrome-flags={' '.join(FLAGS)}"]
    env = os.environ | {"CHROME_PATH": CHROMIUM}
    subprocess.run(command, env=env, check=True, capture_output=True)
    server.shutdown()
    found = json.loads(report.read_text())
    scores = {name: part["score"] for name, part in found["categories"].items()}
    poor = [
        name
        for name in (part["id"] for part in found["categories"]["accessibility"]["auditRefs"])
        if found["audits"][name]["score"] == 0
    ]
    assert (scores["accessibility"], poor) == (1, [])
    if os.environ.get("LIGHTHOUSE_PERFORMANCE") and not address:
        assert scores["performance"] > 0.9
