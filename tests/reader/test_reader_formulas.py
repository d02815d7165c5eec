"""Every loss, and what it is made of, as it is typeset beside the code: its value is that of
the script's function on random numbers."""

import ast
import importlib
import re
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from formulas import MINUS, PLUS, Formula, agree, changed, tokens
from torch.distributions import Categorical, Normal, kl_divergence

from reader.page import load

NOTES = load(Path(__file__).resolve().parents[2])[0]
EQUATIONS = {key: note.get("equations", []) for note in NOTES["note"] for key in note["at"]}
B, T, N, V = 24, 6, 3, 7  # batch; steps or tokens, environments; vocabulary


def module(name: str):
    return importlib.import_module(name)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assigned(script: str, name: str, **known):
    """What train() assigns to `name`, of what is known: for formulas that are no function."""
    tree = ast.parse(Path(module(script).__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == name:
            words = {x.id for x in ast.walk(node.value) if isinstance(x, ast.Name)}
            if words <= known.keys() and words:
                code = compile(ast.Expression(node.value), script, "eval")
                return eval(code, {}, known)
    raise AssertionError(f"{script}.py assigns nothing of {[*known]} to {name}")


def statements(equation: str) -> list[str]:
    """Those that a comma and a space part; without words in brackets, and of what is assigned
    only the new value."""
    equation = re.sub(r"\\quad \\text\{\([A-Z]+\)\}", "", equation)
    parts = re.split(r", \\q?quad |\\quad \\text\{subject to\} \\quad ", equation)
    return [part.rpartition(r"\leftarrow ")[2] for part in parts]


# ---- Numbers for the symbols: each returns the symbols, and what sums and means go over ----
def reinforce(script: str = "reinforce"):
    log_probs, returns = -rand(T, N).abs(), rand(T, N)
    alive = torch.arange(T).unsqueeze(1) < torch.tensor([[6, 4, 2]])
    loss = module(script).reinforce_loss(log_probs, returns, alive)
    values = rand(T, N)
    symbols = {"L": loss, "N": N, r"\pi(a_t \mid s_t)": log_probs.exp()}
    symbols |= {"G_t": returns} if script == "reinforce" else {
        "A_t": returns, "G_t": returns + values, "V(s_t)": values}  # fmt: skip
    return symbols, {"i=1": (1, None), "t": (0, alive)}


def baseline():
    return reinforce("reinforce_baseline")


def returns_to_go():
    rewards, gamma = rand(T, N), 0.9
    returns = module("reinforce").returns_to_go(rewards, gamma)
    following = torch.cat([returns[1:], torch.zeros(1, N)])
    return {"G_t": returns, "r_t": rewards, r"\gamma": gamma, "G_{t+1}": following}, {}


def discounted():
    """The second form, a sum over later rewards: axes t, i, k."""
    symbols, _ = returns_to_go()
    rewards, k = symbols["r_t"], torch.arange(T)
    later = torch.zeros(T, N, T, dtype=torch.float64)
    for t in range(T):
        later[t, :, : T - t] = rewards[t:].T
    symbols = {"G_t": symbols["G_t"][..., None], r"\gamma": 0.9, "r_{t+k}": later, "k": k}
    symbols |= {"r_t": rewards[..., None], "G_{t+1}": symbols["G_t"].roll(-1, 0)}
    symbols["G_{t+1}"][-1] = 0
    return symbols, {r"k \ge 0": (2, None)}


def normalized():
    """Of the episodes still alive at step 3."""
    returns, alive = rand(T, 4), torch.arange(T).unsqueeze(1) < torch.tensor([[6, 4, 2, 5]])
    found = module("reinforce").normalize_returns(returns * alive, alive)
    count = alive.sum(1, keepdim=True)
    means = (returns * alive).sum(1, keepdim=True) / count
    std, some = (returns - means)[alive].std(correction=0), returns[3][alive[3]]
    symbols = {
        "result": found[3][alive[3]],
        "G_t": some,
        "G_t^{(i)}": some,
        r"\mathrm{std}": std,
    }
    symbols |= {r"\bar G_t": means[3], r"|\mathrm{alive}_t|": count[3]}
    return symbols, {r"i\,\in\,\mathrm{alive}_t": (0, None)}


def means_of_the_living():
    symbols, over = normalized()
    return {x: value for x, value in symbols.items() if x != "result"}, over


def advantages(script: str = "a2c"):
    rewards, values, next_values = rand(T, N), rand(T, N), rand(T, N)
    terminated, truncated = torch.rand(2, T, N) < 0.3
    ends = values, next_values, terminated, truncated
    found = module(script).gae(rewards, *ends, 0.9, 0.7)
    later = torch.cat([found[1:], torch.zeros(1, N)])
    symbols = {
        r"\delta_t": module(script).gae(rewards, *ends, 0.9, 0.0), "r_t": rewards,
        r"\hat A_t": found, r"\hat A_{t+1}": later, r"\gamma": 0.9, r"\lambda": 0.7,
        r"\mathrm{terminated}_t": terminated, r"\mathrm{done}_t": terminated | truncated,
        r"V(\mathrm{obs}_t)": values, r"V(\mathrm{next\ obs}_t)": next_values,
        "V_t": values, "V(s_t)": values, "V(s_{t+1})": next_values,
        r"\hat V_t": found + values,
    }  # fmt: skip
    return symbols, {}


def token_advantages():
    mask = torch.arange(T) < torch.tensor([[6], [3], [1]])
    rewards, values = rand(3, T) * mask, rand(3, T) * mask
    gae = module("ppo_rlhf").gae
    found = gae(rewards, values, 0.9, 0.7)
    after = torch.zeros(3, 1)
    return {
        r"\delta_t": gae(rewards, values, 0.9, 0.0), "r_t": rewards, "V_t": values,
        r"\hat A_t": found, r"\hat A_{t+1}": torch.cat([found[:, 1:], after], 1),
        "V_{t+1}": torch.cat([values[:, 1:], after], 1), r"\hat V_t": found + values,
        r"\gamma": 0.9, r"\lambda": 0.7,
    }, {}  # fmt: skip


def normal_advantages(script="ppo", name="mb_advantages", size=1e-30):
    """Of numbers so small that what is added to their std counts."""
    values = size * rand(B)
    mean, std = values.mean(), values.std()
    found = assigned(script, name, **{name: values}, mean=mean, std=std)
    symbols = {"result": found, r"\hat A_t": values, r"\mathrm{mean}": mean}
    return symbols | {r"\mathrm{std}": std}, {}


def normal_tokens():
    return normal_advantages("ppo_rlhf", "advantages", 1e-8)


def targets(script: str = "a2c"):
    advantages, values = rand(B), rand(B)
    found = assigned(script, "returns", advantages=advantages, values=values)
    symbols = {r"\hat V_t": found, "V(s_t)": values, "V_t": values, r"\hat A_t": advantages}
    return symbols | {r"\hat A_t^{\mathrm{raw}}": advantages}, {}


def scaled_rewards():
    rewards, norm = 9 * rand(B), SimpleNamespace(std=torch.tensor(0.7).double())
    found = assigned("ppo_continuous", "s_rewards", s_rewards=rewards, reward_norm=norm)
    return {"result": found, "r_t": rewards, r"\mathrm{std}(\tilde G)": norm.std}, {}


def critic_and_entropy(dist, values, targets) -> dict:
    symbols = {"c_v": 0.4, "c_e": 0.3, "V_t": values, r"\hat V_t": targets}
    return symbols | {r"H(\pi(\cdot \mid s_t))": dist.entropy()}


def a2c():
    dist, actions = Categorical(logits=rand(B, 4)), torch.randint(4, (B,))
    values, advantages, targets = rand(B), rand(B), rand(B)
    loss, _ = module("a2c").a2c_loss(dist, values, actions, advantages, targets, 0.4, 0.3)
    symbols = critic_and_entropy(dist, values, targets)
    symbols |= {"L": loss, r"\hat A_t": advantages}
    symbols[r"\pi(a_t \mid s_t)"] = dist.log_prob(actions).exp()
    return symbols, {"t": (0, None)}


def ratios(log_probs, old_log_probs) -> dict:
    symbols = {
        r"\pi(a_t \mid s_t)": log_probs.exp(),
        r"\rho_t": (log_probs - old_log_probs).exp(),
    }
    return symbols | {r"\pi_{\mathrm{old}}(a_t \mid s_t)": old_log_probs.exp()}


def ppo():
    dist, actions = Categorical(logits=rand(B, 4)), torch.randint(4, (B,))
    values, advantages, targets = rand(B), rand(B), rand(B)
    old = dist.log_prob(actions) + 0.4 * rand(B)
    loss, stats = module("ppo").ppo_loss(
        dist, values, actions, old, advantages, targets, 0.2, 0.4, 0.3
    )
    symbols = critic_and_entropy(dist, values, targets) | ratios(dist.log_prob(actions), old)
    symbols |= {"L": loss, r"\hat A_t": advantages, r"\epsilon": 0.2}
    symbols[r"\mathrm{KL}(\pi_{\mathrm{old}} \,\|\, \pi)"] = stats["approx_kl"]
    return symbols, {"t": (0, None)}


def trpo():
    """A bound so wide that the quadratic model's step, tried first, goes beyond it."""
    actor, obs, actions = module("trpo").Actor(4, 3).double(), rand(B, 4), torch.arange(B) % 3
    advantages, old = rand(B), Categorical(logits=actor(obs).logits.detach())
    found = module("trpo").trust_region_step(
        actor, obs, actions, advantages, 0.5, 15, 1e-3, 10, 0.8
    )
    assert 0 < found["step_fraction"] < 1
    new = actor(obs)
    symbols = ratios(new.log_prob(actions), old.log_prob(actions))
    symbols |= {"L": found["policy_loss"], r"\hat A_t": advantages, r"\mathrm{KL}_{\max}": 0.5}
    symbols[r"\mathrm{KL}(\pi_{\mathrm{old}} \,\|\, \pi)"] = kl_divergence(old, new)
    return symbols, {"t": (0, None)}


def surrogate():
    symbols, over = trpo()
    return symbols | {"result": torch.tensor(-symbols["L"]).double()}, over


def squashed():
    mean, log_std, u = rand(B, 3), 0.3 * rand(B, 3), rand(B, 3)
    dist = module("sac").SquashedGaussian(mean, log_std)
    normal = Normal(mean, log_std.exp()).log_prob(u).sum(-1, keepdim=True)
    symbols = {r"\pi(\tanh u)": dist.log_prob(u).exp().unsqueeze(-1), "u": u, "u_i": u}
    symbols[r"\mathcal{N}(u;\ \mu, \sigma^2)"] = normal.exp()
    return symbols, {"i": (1, None)}


def soft_targets():
    rewards, next_q, log_probs, terminated = rand(B), rand(2, B), rand(B), torch.rand(B) < 0.3
    found = module("sac").soft_q_targets(
        rewards, next_q, log_probs, terminated, torch.tensor(0.3), 0.9
    )
    symbols = {"y": found, "r": rewards, r"\gamma": 0.9, r"\mathrm{terminated}": terminated}
    for state in (r"\mathrm{next\ obs}", "s'"):
        symbols[f"Q_i({state}, a')"] = next_q
        symbols[rf"\pi(a' \mid {state})"] = log_probs.exp()
    symbols[r"V(\mathrm{next\ obs})"] = next_q.min(0).values - 0.3 * log_probs
    symbols["V"] = symbols[r"V(\mathrm{next\ obs})"]
    return symbols | {r"\alpha": 0.3}, {"i = 1, 2": (0, None), "i": (0, None)}


def sac_action():
    mean, log_std = rand(B, 3), 0.3 * rand(B, 3)
    torch.manual_seed(3)
    action, _ = module("sac").SquashedGaussian(mean, log_std).rsample()
    torch.manual_seed(3)
    symbols = {"a": action, r"\mu(s)": mean, r"\sigma(s)": log_std.exp()}
    return symbols | {r"\xi": torch.randn(B, 3, dtype=torch.float64)}, {}


def gaussian():
    actor = module("ppo_continuous").Actor(4, 3).double()
    torch.nn.init.normal_(actor.log_std)
    obs, actions = rand(B, 4), rand(B, 3)
    dist = actor(obs)
    each = Normal(dist.mean, dist.stddev).log_prob(actions).exp()
    symbols = {r"\pi(a \mid s)": dist.log_prob(actions).exp().unsqueeze(1)}
    return symbols | {r"\mathcal{N}\bigl(a_k;\ \mu_k(s),\ \sigma_k^2\bigr)": each}, {
        "k": (1, None)
    }


def merged(result: str = "mean"):
    """Of two batches of single numbers; the equation is what is right of its arrow."""
    norm, batch = module("ppo_continuous").RunningNorm().double(), rand(9)
    norm.update(rand(7) + 2)
    symbols = {r"\mu": norm.mean.clone(), r"\sigma^2": norm.var.clone(), "n": 7, "n_b": 9}
    symbols |= {r"\Delta": batch.mean() - norm.mean, r"\sigma_b^2": batch.var(correction=0)}
    symbols[r"\Delta^2"] = symbols[r"\Delta"] ** 2
    norm.update(batch)
    return symbols | {"result": getattr(norm, result)}, {}


def merged_variance():
    return merged("var")


def sac_critic():
    q, targets = rand(2, B), rand(B)
    symbols = {"L": module("sac").critic_loss(q, targets), "Q_i(s, a)": q, "y": targets}
    return symbols, {"i = 1, 2": (0, None), "": (1, None)}


def sac_actor():
    q, log_probs, alpha = rand(2, B), rand(B), torch.tensor(0.3).double()
    symbols = {"L": module("sac").actor_loss(q, log_probs, alpha), "Q_i(s, a)": q}
    symbols |= {r"\alpha": alpha, r"\pi(a \mid s)": log_probs.exp()}
    return symbols, {r"a \sim \pi": (1, None), "i": (0, None)}


def temperature():
    log_alpha, log_probs = torch.tensor(-0.7).double(), rand(B)
    loss = module("sac").temperature_loss(log_alpha, log_probs, -3.0)
    symbols = {"L": loss, r"\alpha": log_alpha.exp(), r"\pi(a \mid s)": log_probs.exp()}
    return symbols | {r"\bar H": -3.0}, {"": (0, None)}


def completions(script: str = "rloo"):
    """Of a loss on whole completions: axes i, t."""
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1))
    log_probs, advantages = -rand(B, T).abs(), rand(B)
    loss = module(script).reinforce_loss(log_probs, mask, advantages)
    whole = (log_probs * mask).sum(1, keepdim=True).exp()
    symbols = {"L": loss, "A_i": advantages.unsqueeze(1), r"\pi(y_i \mid x_i)": whole}
    symbols |= {"m_{i,t}": mask, r"\pi(y_{i,t} \mid x_i, y_{i,<t})": log_probs.exp()}
    return symbols, {"i": (0, None), "t": (1, None)}


def reinforce_lm():
    return completions("reinforce_lm")


def groups(rewards: str = "R"):
    """Axes: prompts, completions i, the same completions j."""
    group = rand(5, 4)
    found = module("rloo").leave_one_out(group.flatten(), 4).view(5, 4, 1)
    i, j = f"{rewards}_i", f"{rewards}_j"
    symbols = {"A_i": found, i: group.unsqueeze(2), j: group.unsqueeze(1), "K": 4}
    symbols[r"\bar " + rewards] = group.mean(1).view(5, 1, 1)
    return symbols, {r"j \ne i": (2, 1 - torch.eye(4))}


def penalised():
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1))
    log_probs, reference, rewards = -rand(B, T).abs(), -rand(B, T).abs(), rand(B)
    tokens = module("ppo_rlhf").rewards_of_tokens(rewards, log_probs - reference, mask, 0.3)
    symbols = {"R'_i": tokens.sum(1, keepdim=True), "R_i": rewards.unsqueeze(1), r"\beta": 0.3}
    for of, values in (("", log_probs), (r"_{\mathrm{ref}}", reference)):
        symbols[rf"\pi{of}(y_{{i,t}})"] = values.exp()
        symbols[rf"\pi{of}(y_i \mid x_i)"] = (values * mask).sum(1, keepdim=True).exp()
    return symbols, {"t": (1, mask)}


def whole_completion():
    symbols, over = completions()
    return {x: v for x, v in symbols.items() if x != "L"}, over


def moving_average():
    rewards = rand(B)
    return {"A_i": rewards - 0.4, "R_i": rewards, "b": 0.4}, {}


def group_relative():
    group = rand(5, 4)
    found = module("grpo").group_relative(group.flatten(), 4, True).view(5, 4)
    symbols = {"A_i": found, "R_i": group, r"\bar R": group.mean(1, keepdim=True)}
    return symbols | {r"\mathrm{std}(R)": group.std(1, keepdim=True)}, {}


def grpo(**flags):
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1))
    log_probs, advantages = -rand(B, T).abs(), rand(B)
    old, reference = log_probs + 0.3 * rand(B, T), log_probs + 0.3 * rand(B, T)
    args = module("grpo").Args(clip_coef_low=0.2, clip_coef_high=0.3, kl_coef=0.4, **flags)
    loss, _ = module("grpo").grpo_loss(log_probs, old, reference, mask, advantages, args)
    ratio, away = (log_probs - old).exp(), reference - log_probs
    if args.sequence_ratio:
        whole = (ratio**mask).prod(1, keepdim=True) ** (1 / mask.sum(1, keepdim=True))
        ratio = whole.expand_as(mask)
    symbols = {
        "L": loss, r"\rho_t": ratio, "c_t": ratio.clamp(0.8, 1.3), "A_i": advantages[:, None],
        "k_3": away.exp() - 1 - away, r"\beta": 0.4, "|y_i|": mask.sum(1, keepdim=True),
        r"\epsilon_{\mathrm{low}}": 0.2, r"\epsilon_{\mathrm{high}}": 0.3,
        r"\pi_{\mathrm{ref}}(y_t)": reference.exp(), r"\mathrm{sg}(c_t)": ratio.clamp(0.8, 1.3),
    }  # fmt: skip
    for token in ("y_t", "y_u"):
        symbols |= {rf"\pi({token})": log_probs.exp()}
        symbols |= {rf"\pi_{{\mathrm{{old}}}}({token})": old.exp()}
    return symbols, {"i": (0, None), "t": (1, mask), "u": (1, mask)}


def gspo():
    return grpo(sequence_ratio=True)


def cispo():
    return grpo(cispo=True)


def token_rewards():
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1))
    log_probs, reference, scores = -rand(B, T).abs(), -rand(B, T).abs(), rand(B)
    found = module("ppo_rlhf").rewards_of_tokens(scores, log_probs - reference, mask, 0.3)
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros(B, 1, dtype=bool)], 1)
    symbols = {"r_t": found[mask], r"\beta": 0.3, r"\pi(y_t)": log_probs.exp()[mask]}
    symbols |= {r"\pi_{\mathrm{ref}}(y_t)": reference.exp()[mask]}
    symbols |= {r"\hat u": scores[:, None].expand_as(mask)[mask]}
    return symbols | {r"\mathbb{1}_{t = \text{last}}": last[mask]}, {}


def ppo_rlhf():
    log_probs, values, advantages, targets = -rand(B).abs(), rand(B), rand(B), rand(B)
    old = log_probs + 0.4 * rand(B)
    loss, _ = module("ppo_rlhf").ppo_loss(log_probs, values, old, advantages, targets, 0.2, 0.4)
    symbols = {"L": loss, r"\rho_t": (log_probs - old).exp()}
    symbols[r"\hat A_t"] = advantages
    symbols |= {r"\pi(y_t)": log_probs.exp(), r"\pi_{\mathrm{old}}(y_t)": old.exp()}
    symbols |= {r"\epsilon": 0.2, "c_v": 0.4, "V_t": values, r"\hat V_t": targets}
    return symbols, {"t": (0, None)}


def preference():
    chosen, rejected = rand(B), rand(B)
    loss = module("ppo_rlhf").preference_loss(chosen, rejected)
    return {"L": loss, r"\hat u(x, y^{+})": chosen, r"\hat u(x, y^{-})": rejected}, {}


def dpo(pairs: int = B):
    """The rows of the chosen come first; pi(y | x) is about these."""
    mask = torch.arange(T) < torch.randint(1, T + 1, (2 * pairs, 1))
    log_probs, reference = -rand(2 * pairs, T).abs(), -rand(2 * pairs, T).abs()
    loss, stats = module("dpo").dpo_loss(log_probs, reference, mask, 0.3, 0.2)
    wholes = [torch.stack([x[m].sum() for x, m in zip(table, mask, strict=True)])
              for table in (log_probs, reference)]  # fmt: skip
    implied = 0.3 * (wholes[0] - wholes[1])
    return {
        "L": loss, r"\hat u(y)": stats["reward_chosen"], r"\beta": 0.3, "c_n": 0.2,
        r"\hat u(y^{+})": implied[:pairs], r"\hat u(y^{-})": implied[pairs:],
        r"\pi(y \mid x)": wholes[0][:pairs].exp(), "|y^{+}|": mask.sum(1)[:pairs],
        r"\pi(y^{+} \mid x)": wholes[0][:pairs].exp(),
        r"\pi_{\mathrm{ref}}(y \mid x)": wholes[1][:pairs].exp(),
    }, {"": (0, None)}  # fmt: skip


def one_pair():
    return dpo(1)


def optimum():
    """pi* is found by gradient ascent on E[u] - beta KL, and not by its formula."""
    reference, u, beta = rand(V).softmax(0), rand(V), 0.7
    logits = torch.zeros(V, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0)

    def loss():
        solver.zero_grad()
        pi = logits.softmax(0)
        value = -(pi * (u - beta * (pi / reference).log())).sum()
        value.backward()
        return value

    solver.step(loss)
    total = (reference * (u / beta).exp()).sum()
    symbols = {r"\pi^{*}": logits.detach().softmax(0), r"\pi_{\mathrm{ref}}": reference}
    return symbols | {"u": u, "e": torch.e, r"\beta": beta, "Z(x)": total}, {}


# ---- Which equations, counted from 0 and by their statements, are about which numbers ----
CASES = [
    ("reinforce.returns_to_go", 0, 0, discounted),
    ("reinforce.normalize_returns", 0, 0, normalized),
    ("reinforce.normalize_returns", 0, 1, means_of_the_living),
    ("reinforce.reinforce_loss", 0, 0, reinforce),
    ("reinforce_baseline.reinforce_loss", 0, 0, baseline),
    ("reinforce_baseline.reinforce_loss", 1, 0, baseline),
    ("a2c.gae", 0, 0, advantages), ("a2c.gae", 1, 0, advantages),
    ("a2c.a2c_loss", 0, 0, a2c),
    ("a2c.ADVANTAGE", 0, 0, targets), ("ppo_continuous.ADVANTAGE", 0, 1, targets),
    ("ppo_continuous.ADVANTAGE", 0, 0, scaled_rewards),
    ("ppo.UPDATE", 0, 0, normal_advantages),
    ("ppo_rlhf.ADVANTAGE", 0, 0, normal_tokens), ("ppo_rlhf.ADVANTAGE", 0, 1, targets),
    ("ppo_continuous.Actor", 0, 0, gaussian),
    ("ppo_continuous.RunningNorm.update", 0, 0, merged),
    ("ppo_continuous.RunningNorm.update", 0, 1, merged_variance),
    *[("ppo.ppo_loss", k, 0, ppo) for k in range(3)],
    ("trpo.surrogate", 0, 0, surrogate),
    ("trpo.trust_region_step", 0, 0, trpo), ("trpo.trust_region_step", 1, 0, trpo),
    ("trpo.trust_region_step", 1, 1, trpo),
    ("sac.SquashedGaussian.log_prob", 0, 0, squashed),
    ("sac.SquashedGaussian.log_prob", 1, 0, squashed),
    ("sac.soft_q_targets", 0, 0, soft_targets), ("sac.soft_q_targets", 1, 0, soft_targets),
    ("sac.critic_loss", 0, 0, sac_critic),
    ("sac.actor_loss", 0, 0, sac_actor),
    ("sac.temperature_loss", 0, 0, temperature),
    ("sac.TARGET", 0, 0, soft_targets),
    ("reinforce_lm.reinforce_loss", 0, 0, reinforce_lm),
    ("reinforce_lm.reinforce_loss", 0, 0, completions),
    ("reinforce_lm.reinforce_loss", 1, 0, completions),
    ("rloo.leave_one_out", 0, 0, groups),
    ("rloo.ADVANTAGE", 0, 0, penalised),
    ("grpo.group_relative", 0, 0, group_relative),
    *[("grpo.grpo_loss", 0, k, grpo) for k in range(3)],
    ("grpo.grpo_loss", 1, 0, grpo), ("grpo.grpo_loss", 1, 0, gspo),
    ("grpo.grpo_loss", 2, 0, gspo), ("grpo.grpo_loss", 3, 0, cispo),
    ("ppo_rlhf.preference_loss", 0, 0, preference),
    ("ppo_rlhf.rewards_of_tokens", 0, 0, token_rewards),
    ("ppo_rlhf.gae", 0, 0, token_advantages), ("ppo_rlhf.gae", 0, 1, token_advantages),
    ("ppo_rlhf.ppo_loss", 0, 0, ppo_rlhf), ("ppo_rlhf.ppo_loss", 1, 0, ppo_rlhf),
    ("dpo.dpo_loss", 0, 0, one_pair), ("dpo.dpo_loss", 1, 0, dpo),
    ("dpo.dpo_loss", 2, 0, optimum), ("dpo.dpo_loss", 2, 1, optimum),
]  # fmt: skip

GIVEN = {  # by script, or for all, and by the name of the line
    ("", "return to go"): discounted, ("", "surplus over the critic"): baseline,
    ("", "ratio of probabilities"): ppo, ("", "GAE"): advantages, ("", "TD error"): advantages,
    ("", "critic's target"): advantages, ("", "policy"): gaussian, ("", "action"): sac_action,
    ("", "critics' target"): soft_targets, ("", "surplus over the average"): moving_average,
    ("", "completion"): whole_completion, ("", "leave-one-out"): lambda: groups("R'"),
    ("", "penalised reward"): penalised, ("", "group-relative"): group_relative,
    ("grpo", "ratio of probabilities"): grpo, ("", "clip"): grpo, ("", "KL estimate"): grpo,
    ("ppo_rlhf", "ratio of probabilities"): ppo_rlhf, ("ppo_rlhf", "GAE"): token_advantages,
    ("", "implied reward"): one_pair, ("ppo_rlhf", "TD error"): token_advantages,
    ("", "token's reward"): token_rewards, ("ppo_rlhf", "critic's target"): token_advantages,
}  # fmt: skip


def holds(found: tuple, numbers) -> bool:
    torch.manual_seed(1)
    symbols, over = numbers()
    result = symbols.pop("result", None)
    formula = Formula(symbols, over)
    if "\N{LESS-THAN OR EQUAL TO}" in found:
        at = found.index("\N{LESS-THAN OR EQUAL TO}")
        small, large = formula.all_of(found[:at]), formula.all_of(found[at + 1 :])
        return 0 < small <= large
    sides = formula.sides(tuple("=" if x == "\N{ALMOST EQUAL TO}" else x for x in found))
    return agree(sides if result is None else [*sides, result])


def broken(found: tuple) -> list[tuple]:
    """Each of its signs, minima and clips turned into another one."""
    others = {PLUS: MINUS, MINUS: PLUS, "min": "max", "max": "min", "log": "exp"}
    return changed(found, others.get)


@pytest.mark.parametrize(
    ("key", "equation", "statement", "numbers"), CASES, ids=lambda x: getattr(x, "__name__", x)
)
def test_equations_have_the_values_of_the_functions(key, equation, statement, numbers):
    found = tokens(statements(EQUATIONS[key][equation])[statement])
    assert holds(found, numbers)
    for other in broken(found):
        with suppress(ValueError):  # a symbol that the formula does not have
            assert not holds(other, numbers), other


def test_every_loss_is_among_them():
    tested = {key for key, *_ in CASES}
    for note in NOTES["note"]:
        if any(key.endswith("_loss") for key in note["at"]) or "terms" in note:
            assert tested & {*note["at"]}, note["at"]
            losses = [i for i, x in enumerate(note["equations"]) if x.startswith("L =")]
            of_it = {i for key, i, *_ in CASES if key in note["at"]}
            assert {*losses} <= of_it


@pytest.mark.parametrize(
    ("script", "name", "latex"),
    [(script["name"], *line) for script in NOTES["script"] for line in script.get("given", [])],
    ids=lambda x: x if len(x) < 30 and "\\" not in x else "",
)
def test_what_is_given_under_a_loss_has_the_values_of_the_functions(script, name, latex):
    if (script, name) == ("reinforce_lm", "moving average"):
        return  # a step of a running mean: tests/algorithms/test_lm_losses.py
    numbers = GIVEN.get((script, name)) or GIVEN["", name]
    assert holds(tokens(statements(latex)[0]), numbers)


def test_a_bracket_that_ends_too_soon_is_seen():
    """As the notes once had GRPO's: the divergence outside of the sum over tokens."""
    inner = r"\frac{1}{|y_i|} \sum_t \min\bigl(\rho_t\, A_i,\ c_t\, A_i\bigr)"
    for wrong in (rf"\Bigl[{inner} - \beta\, k_3\Bigr]", rf"\Bigl[{inner}\Bigr] - \beta\, k_3"):
        assert not holds(tokens(rf"L = -\,\mathbb{{E}}_i{wrong}"), grpo)
