"""The page in a real browser. Debian's chromium is found on the path; without one these tests
skip, but where REQUIRE_BROWSER is set, as .ci/run sets it, its absence is a failure."""

import os
import shutil
from itertools import combinations
from pathlib import Path

import pytest

from reader.page import build, load

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {name: text.splitlines() for name, text in load(ROOT)[1].items()}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 180_000  # milliseconds; generous, as the machine may be busy
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

if not os.environ.get("REQUIRE_BROWSER"):
    pytest.importorskip("playwright", reason="there is no playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium", allow_module_level=True)

from playwright.sync_api import sync_playwright  # noqa: E402


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM, "REQUIRE_BROWSER is set, and there is no chromium"
    with sync_playwright() as playwright:
        # Its profile is an empty folder of its own, which playwright makes.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """open_page(hash, width, **options) -> a page; at the end no page may have complained, or
    asked for anything but the file."""
    contexts, complaints, requests = [], [], []

    def opened(address: str = "", width: int = 1600, root: Path = ROOT, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url.split("#")[0]))
        page.goto((root / "reader/index.html").as_uri() + address)
        page.add_script_tag(content=(Path(__file__).parent / "probe.js").read_text())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url.endswith("/reader/index.html") or url == "data:," for url in requests)


def go(page, address: str) -> None:
    page.evaluate("address => { location.hash = address; }", address)
    page.wait_for_function("probe.shows", arg=address)


@pytest.fixture
def page(open_page):
    return open_page()


def test_every_pair_opens_and_both_columns_are_the_files(page):
    assert page.evaluate("texts => probe.wrongPairs(texts)", TEXTS) == []
    left, right = page.evaluate("location.hash")[1:].split("..")
    assert {left, right} == set(list(TEXTS)[-2:])  # it went through to the last


def test_every_script_opens_alone_and_is_the_file(page):
    for name, lines in TEXTS.items():
        go(page, f"#{name}")
        assert page.evaluate("probe.column('l')") == lines
        assert page.evaluate("probe.column('r')") == []
        assert page.locator(".hunk").count() == 0


def test_every_edge_and_node_of_the_ladder_opens_what_it_shows(page):
    links = page.locator("#ladder a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    assert {link[1:] for link in links if ".." not in link} == set(TEXTS)
    assert len([link for link in links if ".." in link]) == len(TEXTS) - 1
    for link in links:
        page.locator(f'#ladder a[href="{link}"]').dispatch_event("click")
        page.wait_for_function("probe.shows", arg=link)
        assert page.locator(f'#ladder a.on[href="{link}"]').count() == 1


@pytest.mark.parametrize("right", ["", "..ppo"])
def test_notes_and_the_top_are_there(page, right):
    go(page, f"#a2c{right}")
    assert page.locator(".note math").count() > 10
    assert page.locator("#top .chart polyline").count() >= 3
    assert page.locator("#top table.facts tbody tr").count() >= 3


def test_the_ladders_words_fit_their_boxes(page):
    over = page.locator("#ladder a:has(rect) text").evaluate_all(
        """all => all.filter(text => {
          const rect = text.parentElement.querySelector("rect");
          const [inner, box] = [text, rect].map(shape => shape.getBoundingClientRect());
          return inner.right > box.right - 2 || inner.bottom > box.bottom;
        }).map(text => text.textContent)"""
    )
    assert over == []


def test_the_top_lists_where_they_differ_and_leads_there(page):
    go(page, "#a2c..ppo")
    links = page.locator("#where a")
    names = links.all_inner_texts()
    assert "a2c_loss \u21c4 ppo_loss" in names
    assert {"Args", "SETUP", "UPDATE"} <= set(names)
    assert not {"gae", "ROLLOUT", "mlp"} & set(names)
    links.get_by_text("UPDATE").click()
    page.wait_for_function("location.hash === '#a2c..ppo/UPDATE'")
    assert 0 < page.locator("#part-UPDATE").bounding_box()["y"] < 300
    page.go_back()
    page.wait_for_function("location.hash === '#a2c..ppo' && scrollY === 0")


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
        assert page.locator("h3", has_text="has moved, and stands").count() == 1
        assert page.locator("h3 small").get_by_text("moved", exact=True).count() == 1


def test_a_pair_says_what_the_difference_buys(page):
    go(page, "#a2c..ppo")
    top = page.locator("#top").inner_text()
    assert "the clipped surrogate ratio * A instead of log pi * A" in top
    assert "What clipping buys" in top
    assert "classic-anew" in top
    go(page, "#reinforce..ppo")  # over the edges between them
    headings = page.locator("#top .words h3").all_inner_texts()
    assert [h.split(".py")[0] for h in headings] == ["reinforce_baseline", "a2c", "ppo"]
    go(page, "#trpo..ppo")  # over their common ancestor
    headings = page.locator("#top .words h3").all_inner_texts()
    assert [h.split(".py")[0] for h in headings] == ["trpo", "ppo"]
    go(page, "#reinforce..reinforce_lm")
    assert "No environment was run with both" in page.locator("#top").inner_text()


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
    known = "a2c" if "a2c" in address else ""
    assert page.locator("#left").input_value() == known
    assert page.locator("main").inner_text()


def test_back_and_forward_return_to_pair_and_place(page):
    go(page, "#a2c..ppo")
    page.evaluate("scrollTo(0, 1234)")
    page.wait_for_function("places.get('#a2c..ppo') === 1234")  # it is noticed a little later
    page.locator("#right").select_option("trpo")
    page.wait_for_function("probe.shows", arg="#a2c..trpo")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.wait_for_function("probe.shows", arg="#a2c..ppo")
    assert page.evaluate("scrollY") == 1234
    page.go_forward()
    page.wait_for_function("probe.shows", arg="#a2c..trpo")


def test_menus_choose_any_pair(page):
    page.locator("#left").select_option("dpo")
    page.wait_for_function("probe.shows", arg="#dpo")
    page.locator("#right").select_option("reinforce")
    page.wait_for_function("probe.shows", arg="#dpo..reinforce")


SEEN = "all => all.filter(probe.isSeen).length"


def test_fold_and_unfold(page):
    for left, right in combinations(list(TEXTS)[:4], 2):
        go(page, f"#{left}..{right}")
        lines, n = page.locator(".side > span"), len(TEXTS[left]) + len(TEXTS[right])
        few = lines.evaluate_all(SEEN)
        assert 0 < few < 0.6 * n  # scaffolds, a third of a short file, are folded
        page.keyboard.press("f")
        assert lines.evaluate_all(SEEN) == n
        page.keyboard.press("f")
        assert lines.evaluate_all(SEEN) == few
        fold = page.locator(".fold:has(.side)").first
        inside = fold.locator(".side.l").count()
        assert fold.locator("summary").inner_text().startswith(f"{inside} identical line")
        fold.locator("summary").click()
        assert lines.evaluate_all(SEEN) == few + 2 * inside


def test_what_is_identical_is_folded_and_what_differs_is_not(page):
    go(page, "#a2c..ppo")
    assert page.locator(".fold .hunk, .fold .changed, .fold .only, .fold .moved").count() == 0
    assert page.locator(".hunk .side:not(.changed, .only, .moved):not(:empty)").count() == 0
    longest = page.evaluate("probe.longestUnfoldedRun()")
    assert longest < 12


def test_keys_step_through_differences_swap_and_can_be_switched_off(page):
    go(page, "#a2c..ppo")
    n = page.locator(".hunk").count()
    at = "[...document.querySelectorAll('.hunk')].indexOf(document.activeElement)"
    count = page.locator("#count")
    assert count.inner_text() == f"{n} differences"
    for expected in (0, 1, 2):
        page.keyboard.press("n")
        assert page.evaluate(at) == expected
        assert count.inner_text() == f"difference {expected + 1} of {n}"
        box = page.locator(".hunk").nth(expected).bounding_box()
        assert 0 < box["y"] < 900
    page.keyboard.press("p")
    assert page.evaluate(at) == 1
    for _ in range(n + 2):
        page.keyboard.press("n")
    assert page.evaluate(at) == n - 1
    page.keyboard.press("Control+s")  # the browser's, not ours
    page.keyboard.press("s")
    page.wait_for_function("probe.shows", arg="#ppo..a2c")
    assert page.locator(".hunk").count() == n
    page.locator("#keys").uncheck()
    page.keyboard.press("s")
    page.keyboard.press("n")
    assert page.evaluate("location.hash") == "#ppo..a2c"
    assert page.evaluate(at) == -1
    page.locator("#next").click()
    assert page.evaluate(at) == 0


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
    both = page.locator(".row:has(.changed.l):has(.changed.r)").first
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
        go(page, f"#{name}")
        addresses |= set(
            page.locator("main a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        )
    for address in addresses:
        if not address.startswith("#"):
            assert (ROOT / "reader" / address.split("#")[0]).resolve().is_file(), address


def test_copying_takes_one_column(page):
    go(page, "#a2c..ppo")
    row = page.locator(".row:has(.changed.l):has(.changed.r)").first
    row.locator(".r > span").dispatch_event("mousedown", {"bubbles": True})
    assert row.locator(".l").evaluate("e => getComputedStyle(e).userSelect") == "none"
    assert row.locator(".r > span").evaluate("e => getComputedStyle(e).userSelect") == "auto"
