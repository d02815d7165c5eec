"""The figures: their mathematics against the scripts' own functions, what their captions claim,
their controls, and their still pictures. In a browser, as tests of the page are."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn
from torch.distributions import Categorical

import dpo
import grpo
import ppo
import reinforce
import reinforce_baseline
import rloo
import sac
import trpo
from reader.structure import parts_of
from tools import record

CSS = (record.PLAY.parent / "page.css").read_text(encoding="utf-8")
PROBE = (Path(__file__).parent / "probe.js").read_text(encoding="utf-8")
# Texts of a panel that stand out of what they are drawn in, or on another one.
OVER = """root => [...root.querySelectorAll(".panels > svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect(), scale = frame.width / 400;
  const boxes = [...svg.querySelectorAll("text")].filter(text => text.textContent).map(text => {
    const b = text.getBoundingClientRect(), within = text.closest("svg");
    const box = {left: (b.left - frame.left) / scale, right: (b.right - frame.left) / scale,
      top: (b.top - frame.top) / scale, bottom: (b.bottom - frame.top) / scale};
    const {x, y, width, height} = within === svg ? svg.viewBox.baseVal : within.viewBox.baseVal;
    const out = box.left < x - 1 || box.right > x + width + 8 || box.top < y - 4 ||
      box.bottom > y + height + 4;
    return {...box, out, text: text.textContent};
  });
  const meet = (a, b) => Math.max(a.left, b.left) < Math.min(a.right, b.right) - 1 &&
    Math.max(a.top, b.top) < Math.min(a.bottom, b.bottom) - 4;
  return boxes.filter((a, i) => a.out || boxes.slice(i + 1).some(b => meet(a, b)))
    .map(box => box.text);
})"""
PATIENCE = 180_000  # milliseconds
figures = pytest.mark.parametrize("name", record.NAMES)


@pytest.fixture(scope="module")
def page(browser):
    """A page with the figures' script; at the end it may not have complained."""
    page, complaints = browser.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.set_content("<!DOCTYPE html><html lang=en><body></body></html>")
    page.add_style_tag(content=CSS)
    page.add_script_tag(content=record.figures_script())
    yield page
    page.context.close()
    assert complaints == []


@pytest.fixture
def js(page):
    """js("play.ppo.slope", grid): the function's values at each row of arguments."""
    call = "([name, rows]) => rows.map(row => eval(name)(...row))"
    return lambda name, rows: page.evaluate(call, [name, [list(row) for row in rows]])


@pytest.fixture
def draw(page):
    """draw(name, width, scheme): the figure, alone on the page, in an element of that width."""

    def drawn(name, width=900, scheme="light"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(
            """([name, width]) => {
              document.body.innerHTML = `<figure class="play"><div></div></figure>`;
              const root = document.querySelector("div");
              root.style.width = `${width}px`;
              kit.figure(root, play[name]);
            }""",
            [name, width],
        )
        return page.locator("figure.play > div")

    return drawn


def close(ours, theirs, tolerance=1e-6) -> None:
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, theirs))
    torch.testing.assert_close(ours, theirs.detach(), rtol=tolerance, atol=tolerance)


def double(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- Bandit ----
POLICIES = [[0.38, 0.28, 0.34], [0.9, 0.06, 0.04], [0.1, 0.2, 0.7]]


def policy_gradient(policy: list[float], rewards: list[float], baseline: float | None, a: int):
    """Minus the gradient of the script's loss on one episode of one step, by the logits."""
    logits = double(policy).log().requires_grad_()
    log_prob = Categorical(logits=logits).log_prob(torch.tensor([[a]]))
    alive = torch.ones(1, 1, dtype=torch.bool)
    if baseline is None:
        loss = reinforce.reinforce_loss(log_prob, double([[rewards[a]]]), alive)
    else:
        advantage = double([[rewards[a] - baseline]])
        loss = reinforce_baseline.reinforce_loss(log_prob, advantage, alive)
    return -torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_bandit_has_the_gradients_of_reinforce(js, policy):
    rewards = [1.5, 2.5, 4.0]
    for baseline in (None, -1.0, 2.0, 7.0):
        singles = torch.stack([policy_gradient(policy, rewards, baseline, a) for a in range(3)])
        rows = [[policy, rewards, baseline or 0, a] for a in range(3)]
        close(js("play.bandit.gradient", rows), singles)
        mean = double(policy) @ singles
        close(js("play.bandit.mean", [[policy, rewards]])[0], mean)  # at every baseline
        spread = double(policy) @ ((singles - mean) ** 2).sum(1)
        close(js("play.bandit.spread", [[policy, rewards, baseline or 0]])[0], spread)


def test_bandit_is_least_spread_near_the_expected_reward(js):
    policy = js("play.bandit.policy", [[0.45, 0.3]])[0]  # as it is first drawn
    rewards = [2, 3, 4]
    value = np.dot(policy, rewards)
    baselines = [b / 100 for b in range(-100, 700)]
    spreads = js("play.bandit.spread", [[policy, rewards, b] for b in baselines])
    assert abs(baselines[int(np.argmin(spreads))] - value) < 0.1
    assert min(spreads) < spreads[100] / 10  # which has none


def test_bandit_marks_the_least_spread_wherever_the_policy_is(js, draw, page):
    """Nearly decided for the best action it is far from V."""
    for policy in [*POLICIES, [0.04, 0.04, 0.92]]:
        rewards = double([2.0, 3.0, 4.0])
        squares = torch.stack(
            [policy_gradient(policy, [1.0] * 3, 0.0, a).square().sum() for a in range(3)]
        )
        weights = double(policy) * squares
        best = (weights @ rewards / weights.sum()).item()
        close(js("play.bandit.best", [[policy, rewards.tolist()]])[0], best)
        around = [[policy, rewards.tolist(), best + x] for x in (0, -0.01, 0.01)]
        least, *others = js("play.bandit.spread", around)
        assert least < min(others)
    assert double(policy) @ rewards - best > 0.8
    x, y = js("play.bandit.plane", [[policy]])[0]
    page.evaluate("state => Object.assign(play.bandit.state, state)", {"x": x, "y": y})
    said = draw("bandit").locator("output").inner_text()
    page.evaluate("Object.assign(play.bandit.state, {x: 0.45, y: 0.3})")
    assert f"least at b = {best:.2f}" in said


def test_bandit_shows_a_short_mean_through_the_handle(draw):
    circles = draw("bandit").locator(".handle circle")
    fills = circles.evaluate_all("all => all.map(c => getComputedStyle(c).fill)")
    assert fills == ["rgba(0, 0, 0, 0)"] * 2


def test_bandit_finds_the_policy_of_a_place(js):
    for policy in POLICIES:
        place = js("play.bandit.plane", [[policy]])[0]
        close(js("play.bandit.policy", [place])[0], policy)
    outside = js("play.bandit.policy", [[5, -3], [-9, 9]])
    assert all(min(policy) > 0 and math.isclose(sum(policy), 1) for policy in outside)


# ---- GAE ----
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.98, 0.8), (1, 1), (0.9, 0), (0.5, 1)])
def test_gae_has_the_advantages_of_the_scripts(js, gamma, gae_lambda):
    rng = np.random.default_rng(1000)
    recorded = json.loads((record.PLAY / "gae.json").read_text())
    rewards, values, next_values = rng.normal(size=(3, 20)).tolist()
    ends = (rng.random((2, 20)) < 0.2).tolist()
    drawn = dict(zip(recorded, [rewards, values, next_values, *ends], strict=True))
    for data in (recorded, drawn):
        columns = [double(x).unsqueeze(1) for x in data.values()]
        columns[3:] = [x.bool() for x in columns[3:]]
        theirs = ppo.gae(*columns, gamma, gae_lambda).squeeze(1)
        rewards, values, next_values, terminated, truncated = data.values()
        done = [a or b for a, b in zip(terminated, truncated, strict=True)]
        row = [rewards, values, next_values, terminated, gamma]
        deltas = js("play.gae.deltas", [row])[0]
        close(js("play.gae.advantages", [[deltas, done, gamma, gae_lambda]])[0], theirs)
        rows = [[t, done, gamma, gae_lambda] for t in range(len(done))]
        close(np.array(js("play.gae.weights", rows)) @ deltas, theirs)


def test_gae_recorded_both_ends_and_a_limit_taken_for_failure_blames(js):
    data = json.loads((record.PLAY / "gae.json").read_text())
    terminated, truncated = np.array(data["terminated"]), np.array(data["truncated"])
    assert terminated.sum() == 1
    assert truncated.sum() == 1
    assert not (terminated & truncated).any()
    done, limit = terminated | truncated, int(truncated.argmax())
    numbers = [data["rewards"], data["values"], data["next_values"]]
    advantages = []
    for ends in (terminated, done):
        deltas = js("play.gae.deltas", [[*numbers, ends.tolist(), 0.98]])[0]
        advantages += js("play.gae.advantages", [[deltas, done.tolist(), 0.98, 0.8]])
    right, wrong = np.array(advantages)
    assert (wrong[limit - 4 : limit + 1] < right[limit - 4 : limit + 1] - 3).all()
    assert wrong[limit] < -10 < 0 < right[limit]


# ---- PPO ----
def losses(ratios, advantages, clip_coef):
    """ppo_loss without values and entropy, and the gradient by the ratios of its negative."""
    ratios = double(ratios).requires_grad_()
    dist = SimpleNamespace(log_prob=lambda _: ratios.log(), entropy=lambda: torch.zeros(1))
    zeros = torch.zeros(len(ratios), dtype=torch.float64)
    loss, stats = ppo.ppo_loss(
        dist, zeros, zeros, zeros, double(advantages), zeros, clip_coef, 0.5, 0.0
    )
    return -loss, len(ratios) * torch.autograd.grad(-loss, ratios)[0], stats


@pytest.mark.parametrize("clip", record.CLIPS)
def test_ppo_has_the_surrogate_of_the_script(js, clip):
    grid = [(r, a) for r in np.linspace(0.011, 2, 34) for a in (-1.5, -0.2, 0.4, 1.5)]
    rows = [[ratio, advantage, clip] for ratio, advantage in grid]
    theirs = [losses([ratio], [advantage], clip) for ratio, advantage in grid]
    close(js("play.ppo.surrogate", rows), [surrogate.item() for surrogate, *_ in theirs])
    close(js("play.ppo.slope", rows), [slope.item() for _, slope, _ in theirs])


def test_ppo_has_the_recorded_update(js):
    recorded = json.loads((record.PLAY / "ppo.json").read_text())
    kls, idle = [], []
    for clip, epochs in zip(record.CLIPS, recorded, strict=True):
        assert [len(epoch) for epoch in epochs] == [256] * 5
        first = [ratio for ratio, _ in epochs[0]]
        assert first.count(1.0) >= 128  # all of the first minibatch
        for epoch in epochs:
            ratios, advantages = zip(*epoch, strict=True)
            _, slopes, stats = losses(ratios, advantages, clip)
            close(js("play.ppo.approxKl", [[ratios]])[0], stats["approx_kl"])
            close(js("play.ppo.clipFrac", [[ratios, clip]])[0], stats["clip_frac"])
        kls.append(stats["approx_kl"].item())
        idle.append(int((slopes == 0).sum()) - advantages.count(0))
    assert kls == sorted(kls)  # the wider the clip, the further the ratios run
    assert kls[-1] > 1.5 * kls[1]
    assert min(idle[:3]) > 0 == idle[3]


def test_ppo_opens_where_stepping_begins_and_its_names_lie_on_no_line(page, draw):
    root = draw("ppo")
    assert "Epoch 1:" in root.locator("output").inner_text()
    panel, advantage = root.locator(".panels > svg").first, root.locator("input").nth(2)
    for value in ("-1.5", "1.5"):
        advantage.fill(value)
        crossed = panel.evaluate(
            """svg => [...svg.querySelectorAll("svg text")].filter(text => {
              const b = text.getBBox();
              return [...svg.querySelectorAll("path.one, path.ink")].some(path =>
                kit.range(500, i => path.getPointAtLength(i / 499 * path.getTotalLength()))
                  .some(p => b.x < p.x && p.x < b.x + b.width &&
                    b.y + 2 < p.y && p.y < b.y + b.height - 2));
            }).map(text => text.textContent)"""
        )
        assert crossed == []


def test_recordings_are_of_the_script_as_it_is():
    """To 0.01: another machine rounds sums otherwise, which hardly grows in so few updates.
    After a change of ppo.py's update: `python -m tools.record data`, then `stills`."""
    segment = json.loads((record.PLAY / "gae.json").read_text())
    made = record.segment()
    assert made.keys() == segment.keys()
    for name in segment:
        close(made[name], segment[name], 0.01)
    update = json.loads((record.PLAY / "ppo.json").read_text())[1]
    close(record.update(record.CLIPS[1]), update, 0.01)


# ---- TRPO ----
class TwoWeights(nn.Module):
    """pi(1|x) = sigmoid(w x)."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(double(weights))

    def forward(self, x: Tensor) -> Categorical:
        logits = x @ self.weights
        return Categorical(logits=torch.stack([torch.zeros_like(logits), logits], -1))


def every_action(page, actor):
    """The figure's states with either action, and advantages times their probability, so that
    the batch's means are expectations."""
    states = page.evaluate("play.trpo.states")
    obs = double([x for x, _ in states for _ in range(2)])
    worth = double([worth for _, worth in states for _ in range(2)])
    actions = torch.tensor([0, 1] * len(states))
    with torch.no_grad():
        p = actor(obs).probs
    advantages = worth * (actions - p[:, 1])
    return states, obs, actions, 2 * p.gather(1, actions[:, None]).squeeze(1) * advantages


@pytest.mark.parametrize("damping", [0, 0.1])
@pytest.mark.parametrize("bound", [0.003, 0.1, 1])
def test_trpo_takes_the_step_of_the_script(page, js, bound, damping):
    tries = []
    for old in [(x, y) for x in (-2, -0.9, 0, 1.3) for y in (-2, -1, 0.4, 2)]:
        actor = TwoWeights(old)
        states, *batch = every_action(page, actor)
        stats = trpo.trust_region_step(actor, *batch, bound, 15, damping, 10, 0.8)
        step = js("play.trpo.step", [[states, old, bound, damping]])[0]
        last = step["tries"][-1]
        assert last["good"] == stats["accepted"] == 1
        close(last["w"], actor.weights)
        close([last["fraction"], last["kl"]], [stats["step_fraction"], stats["kl"]])
        close(last["gain"], -stats["policy_loss"])
        tries.append(len(step["tries"]))
    assert max(tries) > 1 or damping


def test_trpo_gives_up_as_the_script_does(page, js):
    actor = TwoWeights([0, -1])
    states, *batch = every_action(page, actor)
    stats = trpo.trust_region_step(actor, *batch, 0.1, 15, 0, 1, 0.8)
    step = js("play.trpo.step", [[states, [0, -1], 0.1, 0, 0.8, 1]])[0]
    assert [t["good"] for t in step["tries"]] == [stats["accepted"]] == [False]


def test_trpo_gradients_are_as_long_by_the_model_and_the_natural_one_gains_more(page, js):
    old, bound = double([0, -1]), 0.1  # as it is first drawn
    actor = TwoWeights([0, -1])
    states, obs, actions, advantages = every_action(page, actor)
    old_dist = actor(obs)
    old_log_probs = old_dist.log_prob(actions).detach()

    def kl(weights):
        p, q = torch.sigmoid(obs @ old), torch.sigmoid(obs @ weights)
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()

    F = torch.autograd.functional.hessian(kl, old)
    surrogate = trpo.surrogate(old_dist, actions, old_log_probs, advantages)
    g = torch.autograd.grad(surrogate, actor.weights)[0]
    step = js("play.trpo.step", [[states, old.tolist(), bound, 0]])[0]
    close(step["F"], F)
    plain, natural = double(step["plain"]), double(step["natural"])
    close(plain / plain.norm(), g / g.norm())
    for s in (plain, natural):
        close(0.5 * s @ F @ s, bound)
    last = step["tries"][-1]
    gain = js("play.trpo.surrogate", [[states, old.tolist(), (old + plain).tolist()]])[0]
    assert last["gain"] > 1.5 * gain
    assert len(step["tries"]) == 2  # the first has too large a KL


# ---- Squashed Gaussian ----
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.6), (-1.5, 0.1), (0, 3), (1.5, 1)])
def test_squash_has_the_density_of_the_script(js, mean, std):
    dist = sac.SquashedGaussian(double([mean]), double([std]).log())
    grid = np.linspace(-20, 20, 81)
    theirs = dist.log_prob(double(grid).unsqueeze(1))
    close(js("play.squash.logProb", [[u, mean, std] for u in grid]), theirs)

    def log_prob(a):
        return dist.log_prob(torch.atanh(double([a]))).item()

    def integral(f):  # over actions, not over noise; cut where tanh is 1 in floating point
        at = [math.tanh(mean + k * std) for k in (-2, 0, 2)]
        at = [a for a in at if abs(a) < 1 - 1e-9]
        limits = -1 + 1e-15, 1 - 1e-15
        return quad(f, *limits, points=at, limit=2000, epsabs=1e-9, epsrel=1e-9)[0]

    def q(a):
        return 1 - 2 * (a - 0.5) ** 2

    entropy = integral(lambda a: -math.exp(log_prob(a)) * log_prob(a))
    value = integral(lambda a: math.exp(log_prob(a)) * q(a))
    close(js("play.squash.value", [[mean, std]])[0], value, 1e-5)
    close(js("play.squash.entropy", [[mean, std]])[0], entropy, 1e-5)


def test_squash_temperature_moves_as_in_the_script(js, draw):
    for std, says in (("0.6", "SAC lowers"), ("0.1", "SAC raises")):
        root = draw("squash")
        root.locator("input").nth(1).fill(std)
        assert says in root.locator("output").inner_text()
        log_alpha = torch.zeros((), requires_grad=True)
        log_probs = -double(js("play.squash.entropy", [[0.5, float(std)]]))
        sac.temperature_loss(log_alpha, log_probs, -1.0).backward()
        assert (log_alpha.grad > 0) == (says == "SAC lowers")  # it is descended


def test_squash_piles_up_at_the_bounds_and_cools_to_certainty(js):
    for std, piles in ((0.5, False), (1.5, True), (3, True)):
        middle, edge = js("play.squash.logProb", [[0, 0, std], [math.atanh(0.9), 0, std]])
        assert (edge > middle) == piles
    tables = js("play.squash.table", [[0.5, alpha] for alpha in (0.01, 0.1, 0.3, 1, 3)])
    best = [std for std, *_ in js("play.squash.best", [[table] for table in tables])]
    assert best == sorted(set(best))
    for alpha, table in zip((0.01, 0.1, 0.3, 1, 3), tables, strict=True):
        sums = js("play.squash.value", [[0.5, std] for std, *_ in table])
        entropies = js("play.squash.entropy", [[0.5, std] for std, *_ in table])
        sums = np.array(sums) + alpha * np.array(entropies)
        assert best.pop(0) == table[sums.argmax()][0]


# ---- Groups ----
GROUPS = [
    [1, 0, 1, 0, 0, 1, 0, 0],
    [0.51, *[0.5] * 7],
    [0.5] * 8,
    [0.1, 0.7, 0.2, 0.9, 0.3, 0.3, 1, 0],
]


@pytest.mark.parametrize("rewards", GROUPS)
def test_groups_have_the_advantages_of_the_scripts(js, rewards):
    close(js("play.groups.leaveOneOut", [[rewards]])[0], rloo.leave_one_out(double(rewards), 8))
    for norm_std in (False, True):
        theirs = grpo.group_relative(double(rewards), 8, norm_std)
        close(js("play.groups.groupRelative", [[rewards, norm_std]])[0], theirs)


@pytest.mark.parametrize(("number", "length_norm"), [(0, "own"), (1, "mean"), (2, "max")])
def test_groups_tokens_weigh_as_in_the_script(js, number, length_norm):
    lengths, advantages = [2, 5, 3, 8, 4, 6, 2, 8], np.linspace(-1, 2, 8).tolist()
    mask = torch.arange(8) < torch.tensor(lengths).unsqueeze(1)
    log_probs = torch.zeros(8, 8, dtype=torch.float64, requires_grad=True)
    args = grpo.Args(kl_coef=0, length_norm=length_norm, max_completion_length=8)
    same = log_probs.detach()
    loss, _ = grpo.grpo_loss(log_probs, same, same, mask, double(advantages), args)
    gradient = -8 * torch.autograd.grad(loss, log_probs)[0]  # of the mean over 8
    weights = js("play.groups.tokenWeights", [[advantages, lengths, number, 8]])[0]
    close(np.array(weights)[:, None] * mask.numpy(), gradient)


def test_groups_std_blows_small_differences_up_and_equals_teach_nothing(js):
    near, equal = GROUPS[1:3]
    small, large = js("play.groups.groupRelative", [[near, False], [near, True]])
    assert max(map(abs, small)) < 0.01
    assert max(map(abs, large)) > 2
    assert js("play.groups.groupRelative", [[equal, True]])[0] == [0] * 8
    assert js("play.groups.leaveOneOut", [[equal]])[0] == [0] * 8


def test_groups_weigh_the_prompt_by_the_advantages_that_are_chosen(draw):
    rewards = double([1, 0, 1, 0, 0, 1, 0, 0])  # as it is first drawn
    sums = [rloo.leave_one_out(rewards, 8).abs().sum().item()]
    sums += [grpo.group_relative(rewards, 8, std).abs().sum().item() for std in (False, True)]
    root = draw("groups")
    for kind in range(3):
        root.locator("input").first.fill(str(kind))
        weight = f"{sums[kind] / sums[0]:.2f}" if kind else "1"
        assert f"This prompt weighs {weight}" in root.locator("output").inner_text()
        assert ("with RLOO" in root.locator("output").inner_text()) == (kind > 0)


# ---- DPO ----
def pair_loss(log_probs: Tensor, start: Tensor, beta: float, nll: float) -> Tensor:
    """dpo_loss of a pair of completions of one token: chosen, then rejected."""
    mask = torch.ones(2, 1, dtype=torch.bool)
    log_probs, start = log_probs[:2].unsqueeze(1), start[:2].unsqueeze(1)
    return dpo.dpo_loss(log_probs, start, mask, beta, nll)[0].sum()


@pytest.mark.parametrize("beta", [0.05, 0.3, 1])
def test_dpo_has_the_loss_of_the_script(js, beta):
    rows, losses, slopes = [[margin, beta] for margin in np.linspace(-40, 40, 41)], [], []
    for margin, _ in rows:
        log_probs = double([margin, 0]).requires_grad_()
        losses.append(pair_loss(log_probs, torch.zeros(2), beta, 0))
        slopes.append(torch.autograd.grad(losses[-1], log_probs)[0][0].item())
    close(js("play.dpo.loss", rows), [loss.item() for loss in losses])
    close(js("play.dpo.slope", rows), slopes)


@pytest.mark.parametrize(
    ("share", "beta", "nll"), [(0, 0.3, 0), (2, 0.3, 0), (1, 1, 0.1), (2, 0.05, 0.5)]
)
def test_dpo_descends_the_loss_of_the_script(page, js, share, beta, nll):
    features, start = double([[1, 0], [1, -1], [0, share]]), double([0.3, 0.3, 0.4]).log()
    weights, points = torch.zeros(2, dtype=torch.float64, requires_grad=True), []
    for _ in range(61):
        log_probs = (start + features @ weights).log_softmax(0)
        points.append(log_probs.exp().tolist())
        gradient = torch.autograd.grad(pair_loss(log_probs, start, beta, nll), weights)[0]
        weights = (weights - gradient).detach().requires_grad_()
    path = js("play.dpo.path", [[60, share, beta, nll]])[0]
    close(js("play.dpo.probabilities", [[w, share] for w in path]), points)
    log_ratios = (np.log(points) - start.numpy())[:, :2]
    close(js("play.dpo.margin", [[w, share] for w in path]), -np.diff(log_ratios)[:, 0])


def test_dpo_lowers_the_chosen_where_a_third_shares_and_nll_holds_it(js):
    def ends(share, nll):
        path = js("play.dpo.path", [[60, share, 0.3, nll]])[0]
        margins = js("play.dpo.margin", [[w, share] for w in path])
        assert (np.diff(margins) > 0).all()
        return [p[0] for p in js("play.dpo.probabilities", [[path[i], share] for i in (0, 60)])]

    start, alone = ends(0, 0)
    _, shared = ends(1, 0)
    _, held = ends(1, 0.1)
    assert shared < start - 0.1 < start < alone
    assert held > start


# ---- All of them ----
@figures
def test_they_stand_beside_parts_of_scripts(page, name):
    title, caption, at = page.evaluate(
        "name => [play[name].title, play[name].caption, play[name].at]", name
    )
    assert title
    assert caption.endswith(".")
    for place in at:
        script, part = place.split(".", 1)
        text = (record.PLAY.parents[1] / f"{script}.py").read_text(encoding="utf-8")
        assert part in {p.name for p in parts_of(text)}


def sound(root) -> str:
    """What the figure shows, if all its numbers are finite and nothing is undefined."""
    shown = root.locator(".panels").inner_html() + root.locator("output").inner_text()
    assert not [bad for bad in ("NaN", "undefined", "Infinity", "null") if bad in shown]
    return shown


@figures
def test_every_control_changes_the_figure_over_its_whole_range(draw, name):
    root = draw(name)
    first = sound(root)
    for slider in root.locator("input").all():
        before, seen = sound(root), set()
        slider.fill(slider.input_value())  # it stands where the figure does
        assert sound(root) == before
        for end in ("min", "max"):
            slider.fill(slider.get_attribute(end))
            seen.add(sound(root))
            assert slider.get_attribute("aria-valuetext") in root.inner_text()
        assert len(seen) == 2
    assert sound(draw(name)) == first  # a new one knows nothing of the old one


@pytest.mark.parametrize("name", ["bandit", "trpo", "groups"])
def test_handles_follow_pointer_and_keys(page, draw, name):
    root = draw(name)
    for handle in root.locator(".handle").all():
        before, box = sound(root), handle.locator("circle").nth(1).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        towards = -30 if handle.get_attribute("aria-valuenow") in ("0", "-1") else 30
        page.mouse.move(x, y + towards, steps=3)
        page.mouse.up()
        after = handle.locator("circle").nth(1).bounding_box()
        assert after["y"] + after["height"] / 2 == pytest.approx(y + towards, abs=3)
        dragged = sound(root)
        page.mouse.move(x, y)  # let go
        assert sound(root) == dragged != before
        handle.focus()
        now = float(handle.get_attribute("aria-valuenow"))
        page.keyboard.press("ArrowUp")
        assert float(handle.get_attribute("aria-valuenow")) > now
        page.keyboard.press("Home")
        page.keyboard.press("n")
        low, high = (float(handle.get_attribute(f"aria-value{x}")) for x in ("min", "max"))
        assert low <= float(handle.get_attribute("aria-valuenow")) < low + (high - low) / 20


def test_handles_follow_a_finger(page, draw):
    """The browser may not take the touch for scrolling."""
    root = draw("groups", 368)
    style = root.locator(".handle").first.evaluate("e => getComputedStyle(e).touchAction")
    assert style == "none"
    circle = root.locator(".handle circle").first.bounding_box()
    assert min(circle["width"], circle["height"]) >= 24


@figures
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [368, 1000])
def test_they_fit_are_named_and_can_be_read(page, draw, name, width, scheme):
    root = draw(name, width, scheme)
    page.add_script_tag(content=PROBE.replace("const", "var", 1))  # anew each time
    checked, poor = page.evaluate("probe.poorContrast()")
    assert checked > 10
    assert poor == []
    assert root.evaluate("e => e.scrollWidth") <= width
    for element in root.locator("input, select, button, [role=slider], .panels > svg").all():
        label = element.evaluate("e => e.ariaLabel || (e.labels?.[0] || e).textContent")
        assert re.search("[a-z]", label)
    over = root.evaluate(OVER)
    assert over == []


# ---- Still pictures ----
@figures
def test_still_pictures_are_those_of_the_figures(page, name):
    path = record.PLAY / f"{name}.svg"
    shown = page.evaluate(record.STILL, name)
    page.evaluate("document.body.replaceChildren()")
    assert path.read_text(encoding="utf-8") == shown, "run python -m tools.record stills"
    root = ElementTree.fromstring(shown)
    title, description, _ = root
    assert [title.text, description.text] == page.evaluate(
        "name => [play[name].title, play[name].caption]", name
    )
