"""Makes files of the reader's figures: `python -m tools.record data` the recordings of ppo.py's
runs, `python -m tools.record stills` the pictures for pages without JavaScript, by chromium."""

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ppo
from reader.page import figures_script

PLAY = Path(__file__).parents[1] / "reader/play"
NAMES = ["bandit", "gae", "ppo", "trpo", "squash", "groups", "dpo"]
CLIPS = [0.1, 0.2, 0.3, math.inf]
UPDATE = 15  # which update is recorded
SMALL = {  # batches small enough to look at, whose ratios run far enough to see
    "num_steps": 32, "num_minibatches": 2, "update_epochs": 5, "gamma": 0.98, "gae_lambda": 0.8,
    "clip_coef": 0.2,
}  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# What a figure draws at first as one SVG, two panels beside each other, without what only hands
# need. It is to stand in the page, whose styles it has.
STILL = """name => {
  const root = document.body.appendChild(document.createElement("div"));
  kit.figure(root, play[name]);
  for (const dot of root.querySelectorAll(".handle")) for (const key of dot.getAttributeNames())
    if (key !== "class" && key !== "transform") dot.removeAttribute(key);
  const panels = [...root.querySelectorAll(".panels > svg")];
  const size = panels[0].viewBox.baseVal.height + 12;
  return `<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 820 ` +
    `${size * Math.ceil(panels.length / 2)}">\\n<title>${play[name].title}</title>` +
    `<desc>${play[name].caption}</desc>\\n<g class="play">` + panels.map((panel, i) =>
    `<svg x="${420 * (i % 2)}" y="${size * Math.floor(i / 2)}" width="400" height="${size}" ` +
    `style="height:${size}px">${panel.innerHTML}</svg>`).join("\\n") + "</g></svg>\\n";
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

    steps = {"num_steps": 64, "env_kwargs": '{"max_episode_steps": 40}'}
    columns = record("gae", stand_in, **SMALL | steps)
    names = ["rewards", "values", "next_values", "terminated", "truncated"]
    columns = [[round(x, 3) for x in column] for column in columns[:3]] + columns[3:]
    return dict(zip(names, columns, strict=True))


def update(clip: float) -> list:
    """[ratio, normalised advantage] of each sample as the loss meets it, epoch by epoch, in one
    update that clips at `clip`; those before it clip at 0.2."""
    batches, per_update = [], SMALL["update_epochs"] * SMALL["num_minibatches"]

    def stand_in(
        shipped, dist, values, actions, old_log_probs, advantages, returns, clip_coef, *coefs
    ):
        ratios = (dist.log_prob(actions) - old_log_probs).exp()
        batches.append([*zip(ratios.tolist(), advantages.tolist(), strict=True)])
        if len(batches) == UPDATE * per_update:
            raise Recorded(batches[-per_update:])
        if len(batches) > (UPDATE - 1) * per_update:
            clip_coef = clip
        rest = [advantages, returns, clip_coef, *coefs]
        return shipped(dist, values, actions, old_log_probs, *rest)

    halves = record("ppo_loss", stand_in, **SMALL)
    epochs = [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)]
    return [[[round(r, 3), round(a, 2)] for r, a in epoch] for epoch in epochs]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.record", description=__doc__)
    parser.add_argument("what", choices=["data", "stills"])
    if parser.parse_args().what == "data":
        for name, data in ("gae", segment()), ("ppo", [update(clip) for clip in CLIPS]):
            text = json.dumps(data, separators=(",", ":")) + "\n"
            (PLAY / f"{name}.json").write_text(text, encoding="utf-8")
        return
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        parser.error("the pictures need chromium on the path")
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page()
        page.add_script_tag(content=figures_script())
        for name in NAMES:
            text = page.evaluate(STILL, name)
            (PLAY / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
