"""What a language model has learned, and how far it went from its base model for it."""

import json
import math

import numpy as np

from . import plots, stats
from .captions import Groups, all_runs, caption_counts, file_stem
from .page import Figure
from .prepared import Prepared, values


def with_exact(groups: Groups) -> Groups:
    """Of each algorithm the runs that know their exact success and their divergence from the
    base model, if any."""
    found = {}
    for name, runs in groups.items():
        if known := [run for run in runs if {"exact_success", "kl"} <= run.further.keys()]:
            found[name] = known
    return found


def base_success(runs: list[Prepared]) -> tuple[np.ndarray, np.ndarray, str]:
    """The base model's probabilities of success on the held-out problems, the share of each,
    and where from.

    A teacher who forgets every carry with probability `carelessness` is right on problems of
    one carry and of two with known probabilities, and the base model imitates him; the shares
    are those that give its mean success.
    """
    mean = float(np.mean([run.summary["base_exact_success"] for run in runs]))
    flags = runs[0].args
    if "task_kwargs" in flags:  # where these two are, unless they have their defaults
        flags = {"carelessness": 0.5, "coherent": False} | json.loads(flags["task_kwargs"])
    right = 1 - flags.get("carelessness", math.nan)
    if flags.get("coherent") is not False or not right**2 < mean < right:
        text = f"{mean:.3f} on every problem, its measured mean"
        return np.array([mean]), np.ones(1), text
    easy = (mean - right**2) / (right - right**2)
    text = (
        f"{right:g} on {easy:.0%} of the problems and {right**2:g} on the others, by "
        f"construction of the task (mean {mean:.3f}, as measured)"
    )
    return np.array([right, right**2]), np.array([easy, 1 - easy]), text


def optimum(
    base: np.ndarray, shares: np.ndarray, points: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """KL and success, (points,) each, of the policies proportional to base policy * exp(reward
    / beta), beta falling.

    A problem with base success p, and reward 1 for success and 0 else, gets to
    q = p e^(1/beta) / (p e^(1/beta) + 1 - p), at KL = q log(q/p) + (1-q) log((1-q)/(1-p)). No
    others succeed more at the same mean KL.
    """
    odds = base / (1 - base) * np.exp(np.linspace(0, 15, points))[:, None]  # (points, problems)
    q = odds / (1 + odds)
    kl = q * np.log(q / base) + (1 - q) * np.log((1 - q) / (1 - base))
    return kl @ shares, q @ shares


def frontier(env_id: str, groups: Groups, style: dict) -> Figure | None:
    """Success against divergence, beside the best there is; None where no run knows both."""
    members = with_exact(groups)
    based = [x for x in all_runs(members) if 0 < x.further.get("base_exact_success", 0) < 1]
    if not based:
        return None
    scripts = {name: str(runs[0].args.get("script", name)) for name, runs in members.items()}
    points = {}
    for name in sorted(members, key=lambda name: (scripts[name], name)):
        both = [values(members[name], key) for key in ("kl", "exact_success")]
        points[name] = [(x.mean(), *stats.interval([x], stats.mean)) for x in both]
    levels, shares, text = base_success(based)
    spec = plots.plot_frontier(
        points, optimum(levels, shares), style, env_id,
        "KL(policy || base model), nats", "exact success",
    )  # fmt: skip
    caption = (
        f"{env_id}: exact success on held-out problems against KL(policy || base model) at the "
        "end of training, means over seeds with Student's 95% intervals of both. The curve is "
        "the optimum in closed form: base policy * exp(reward / beta) for every beta, from the "
        f"base model's success of {text}. A colour stands for a script. Success "
        "is on a logit scale, from 0.001 to 0.999; the divergence, if it goes beyond 2, is on "
        f"a log scale from 1 on. {caption_counts(groups)}."
    )
    return Figure(caption, file_stem("frontier", env_id), spec)
