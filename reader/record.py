"""Makes files of the figures: `python -m reader.record data` the recordings of ppo.py's runs,
`python -m reader.record stills` the pictures for pages without JavaScript, with chromium."""

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path

import ppo

PLAY = Path(__file__).parent / "play"
NAMES = ["bandit", "gae", "ppo", "trpo", "squash", "groups", "dpo"]
CLIPS = [0.1, 0.2, 0.3, math.inf]
UPDATE = 15  # which update is recorded
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
# The panels that a figure draws, two beside each other in one picture, without its handles.
STILL = """name => {
  const root = document.body.appendChild(document.createElement("div"));
  play[name].draw(root);
  const panels = [...root.querySelectorAll(".panels > svg")].map((panel, i) => {
    const height = panel.viewBox.baseVal.height, y = (height + 12) * Math.floor(i / 2);
    const dots = [...panel.querySelectorAll(".handle")].map(dot => `<g class="handle" ` +
      `transform="${dot.getAttribute("transform")}">${dot.innerHTML}</g>`);
    return [y + height, `<svg x="${420 * (i % 2)}" y="${y}" width="400" height="${height}" ` +
      `style="height:${height}px">${panel.firstChild.innerHTML}${dots.join("")}</svg>`];
  });
  return [Math.max(...panels.map(p => p[0])), panels.map(p => p[1]).join("\\n"),
    play[name].title, play[name].caption];
}"""


class Recorded(Exception):
    """Carries what was recorded; the run may end."""


def record(name: str, stand_in: Callable, **flags) -> list:
    """Train ppo.py with one of its functions replaced, until that raises Recorded."""
    shipped = getattr(ppo, name)
    setattr(ppo, name, partial(stand_in, shipped))
    try:
        with tempfile.TemporaryDirectory() as folder:
            ppo.train(ppo.Args(seed=1000, run_dir=Path(folder) / "run", **flags))
    except Recorded as recorded:
        return recorded.args[0]
    finally:
        setattr(ppo, name, shipped)


def segment() -> dict[str, list]:
    """What gae is given of one environment, the first in whose segment of 64 steps one episode
    has failed and another was cut by a time limit of 40 steps."""
    calls = []

    def stand_in(shipped, *tensors_and_flags):
        calls.append(tensors_and_flags)
        *_, terminated, truncated, _, _ = tensors_and_flags
        both = (terminated & ~truncated).any(0) & (truncated & ~terminated).any(0)
        if len(calls) >= UPDATE and both.any():
            i = both.nonzero()[0, 0]
            raise Recorded([x[:, i].tolist() for x in tensors_and_flags[:5]])
        return shipped(*tensors_and_flags)

    columns = record("gae", stand_in, num_steps=64, env_kwargs='{"max_episode_steps": 40}')
    names = ["rewards", "values", "next_values", "terminated", "truncated"]
    columns = [[round(x, 3) for x in column] for column in columns[:3]] + columns[3:]
    return dict(zip(names, columns, strict=True))


def update(clip: float) -> list:
    """[ratio, normalised advantage] of each sample as the loss meets it, epoch by epoch, in one
    update that clips at `clip`; those before it clip as the script does by default."""
    args, batches = ppo.Args(), []
    per_update = args.update_epochs * args.num_minibatches

    def stand_in(shipped, dist, values, actions, old_log_probs, advantages, *rest):
        ratios = (dist.log_prob(actions) - old_log_probs).exp()
        batches.append([*zip(ratios.tolist(), advantages.tolist(), strict=True)])
        if len(batches) == UPDATE * per_update:
            raise Recorded(batches[-per_update:])
        returns, clip_coef, *coefs = rest
        clip_coef = clip if len(batches) > (UPDATE - 1) * per_update else clip_coef
        rest = [returns, clip_coef, *coefs]
        return shipped(dist, values, actions, old_log_probs, advantages, *rest)

    halves = record("ppo_loss", stand_in)
    epochs = [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)]
    return [[[round(r, 3), round(a, 2)] for r, a in epoch] for epoch in epochs]


def save_data() -> None:
    for name, data in ("gae", segment()), ("ppo", [update(clip) for clip in CLIPS]):
        text = json.dumps(data, separators=(",", ":"))
        (PLAY / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def script() -> str:
    """The figures' JavaScript and data, as the page has it."""
    paths = [PLAY / "common.js", *(PLAY / f"{name}.js" for name in NAMES)]
    data = [f"play.{path.stem}.data = {path.read_text()};" for path in PLAY.glob("*.json")]
    return "\n".join([path.read_text(encoding="utf-8") for path in paths] + data)


def still(page, name: str) -> str:
    """The picture of one figure as SVG, from a page that has script(); its colours are those of
    the page that it stands in, or by itself the light ones."""
    height, panels, title, caption = page.evaluate(STILL, name)
    light = (PLAY.parent / "page.css").read_text(encoding="utf-8").partition("}")[0]
    rules = (PLAY / "play.css").read_text(encoding="utf-8")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="play" viewBox="0 0 820 {height}"'
    words = f"<title>{escape(title)}</title><desc>{escape(caption)}</desc>"
    style = f"<style>svg{light}}}\n{rules}</style>"
    return f'{head} role="img">{words}\n{style}\n{panels}\n</svg>\n'


def save_stills() -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        page = playwright.chromium.launch(executable_path=path, args=FLAGS).new_page()
        page.add_script_tag(content=script())
        for name in NAMES:
            (PLAY / f"{name}.svg").write_text(still(page, name), encoding="utf-8")


if __name__ == "__main__":
    {"data": save_data, "stills": save_stills}[sys.argv[1]]()
