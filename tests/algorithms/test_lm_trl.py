"""The losses on fixed tensors against TRL's.

The numbers were made with TRL 1.16.0 and torch 2.13.0, double precision, on a CPU: the unbound
GRPOTrainer._compute_loss and RLOOTrainer._compute_loss were called on an object that holds the
settings below and returns `new` as the model's log-probabilities; beta is our kl_coef,
epsilon_low and epsilon_high our clip coefficients, and loss_type "dr_grpo", "dapo" and "cispo"
our lengths and our cispo. Their "dapo" divides by the tokens of all that was sampled at once,
ours by those of the minibatch: the same in a batch of one minibatch. Their "cispo" bounds the
ratio by epsilon_high itself, and not from below.

Those of DPO were made in the same way with DPOTrainer._compute_loss, loss_type "sigmoid", and
"sft" with the weight that is our nll_coef. Theirs is the mean over the tokens of all chosen
completions, ours the mean over pairs of each one's mean: the same where all are as long.
"""

import pytest
import torch

import dpo
import grpo
import reinforce_lm
import rloo


def wave(k: float) -> torch.Tensor:
    return torch.sin(torch.arange(40, dtype=torch.float64) * k + k).view(8, 5)


MASK = torch.arange(5) < torch.tensor([3, 1, 5, 2, 4, 5, 1, 2])[:, None]
OLD, REF, ADVANTAGES = -1 + 0.5 * wave(0.7) + 0.1, -1 + 0.4 * wave(2.9), wave(1.9)[:, 0]
PROBE = torch.cos(torch.arange(40, dtype=torch.float64)).view(8, 5)
MAX_LENGTH = 6

# loss_type, importance_sampling_level, beta, epsilon_low, epsilon_high:
# the loss, and the scalar product of its gradient with PROBE
GOLDEN = [
    ("grpo", "token", 0.0, 0.2, 0.2, 0.271349063367, -0.154105865474),
    ("dr_grpo", "token", 0.0, 0.2, 0.2, 0.022005609204, -0.059196513687),
    ("grpo", "token", 0.0, 0.1, 0.28, 0.277691233842, -0.137060074680),
    ("dr_grpo", "token", 0.0, 0.1, 0.28, 0.025523833832, -0.047832653158),
    ("grpo", "token", 0.04, 0.2, 0.2, 0.275843298523, -0.153215089616),
    ("dr_grpo", "token", 0.04, 0.2, 0.2, 0.023961406371, -0.058922345741),
    ("grpo", "token", 0.04, 0.1, 0.28, 0.282185468998, -0.136169298823),
    ("dr_grpo", "token", 0.04, 0.1, 0.28, 0.027479630999, -0.047558485212),
    ("grpo", "token", 0.5, 0.2, 0.2, 0.327527002819, -0.142971167254),
    ("dr_grpo", "token", 0.5, 0.2, 0.2, 0.046453073788, -0.055769414361),
    ("grpo", "token", 0.5, 0.1, 0.28, 0.333869173294, -0.125925376460),
    ("dr_grpo", "token", 0.5, 0.1, 0.28, 0.049971298416, -0.044405553832),
    ("grpo", "sequence", 0.0, 0.2, 0.2, 0.233820455793, -0.104127842731),
    ("grpo", "sequence", 0.0, 0.1, 0.28, 0.251533637196, -0.104127842731),
    ("grpo", "sequence", 0.0, 0.0003, 0.0004, 0.270396262240, -0.090236700982),
    ("grpo", "sequence", 0.04, 0.1, 0.28, 0.256027872352, -0.103237066873),
    ("dapo", "token", 0.0, 0.2, 0.2, 0.045924749644, -0.123540550304),
    ("dapo", "token", 0.0, 0.1, 0.28, 0.053267131476, -0.099824667460),
    ("dapo", "token", 0.04, 0.1, 0.28, 0.057348795128, -0.099252490877),
    ("dapo", "sequence", 0.0, 0.1, 0.28, 0.019284364046, -0.100003058275),
    ("dr_grpo", "sequence", 0.0, 0.1, 0.28, 0.009240424439, -0.047918132090),
    ("cispo", "token", 0.0, None, 1.28, 0.114559859899, -0.111178866430),
    ("cispo", "token", 0.0, None, 5.0, 0.079901654202, -0.118202304049),
    ("cispo", "token", 0.04, None, 1.28, 0.118641523551, -0.110606689847),
    ("cispo", "sequence", 0.0, None, 1.28, 0.117810872087, -0.116267769950),
]


def new_log_probs() -> torch.Tensor:
    return (-1 + 0.5 * wave(1.3)).requires_grad_()


@pytest.mark.parametrize(
    ("kind", "level", "beta", "low", "high", "value", "slope"), GOLDEN, ids=str
)
def test_grpo_loss_is_that_of_trl(kind, level, beta, low, high, value, slope):
    cispo = kind == "cispo"
    args = grpo.Args(
        length_norm={"grpo": "own", "dr_grpo": "max"}.get(kind, "mean"), cispo=cispo,
        sequence_ratio=level == "sequence", kl_coef=beta,
        clip_coef_low=1.0 if cispo else low, clip_coef_high=high - cispo,
        max_completion_length=MAX_LENGTH,
    )  # fmt: skip
    new = new_log_probs()
    loss, _ = grpo.grpo_loss(new, OLD, REF, MASK, ADVANTAGES, args)
    (gradient,) = torch.autograd.grad(loss, new)
    assert loss.item() == pytest.approx(value, abs=1e-11)
    assert (gradient * PROBE).sum().item() == pytest.approx(slope, abs=1e-11)


@pytest.mark.parametrize("script", [reinforce_lm, rloo])
def test_the_gradient_of_rloos_loss_is_that_of_trl_on_policy(script):
    """Theirs is a ratio of whole completions, at 1 here; its value is another."""
    new = new_log_probs()
    (gradient,) = torch.autograd.grad(script.reinforce_loss(new, MASK, ADVANTAGES), new)
    assert (gradient * PROBE).sum().item() == pytest.approx(-0.3637014756292396, abs=1e-11)


# Lengths of the chosen completions, kl_coef, nll_coef: as above, and the parts that TRL logs
DPO_GOLDEN = [
    ([3, 1, 5, 2], 0.04, 0.0, 0.683426775759, -0.018150365452, 0.016737824553, 1.0),
    ([3, 1, 5, 2], 0.5, 0.0, 0.579480722374, -0.206610708974, 0.209222806915, 1.0),
    ([3, 1, 5, 2], 2.0, 0.0, 0.333620320494, -0.580430193469, 0.836891227662, 1.0),
    ([3, 3, 3, 3], 0.04, 0.3, 0.973571348689, -0.048495682468, 0.004385812619, 0.75),
    ([3, 3, 3, 3], 0.5, 0.3, 0.935318192072, -0.245258536643, 0.054822657742, 0.75),
    ([3, 3, 3, 3], 2.0, 0.3, 0.846522931910, -0.485812347674, 0.219290630966, 0.75),
]


@pytest.mark.parametrize(
    ("lengths", "kl_coef", "nll_coef", "value", "slope", "reward_chosen", "accuracy"),
    DPO_GOLDEN, ids=str,
)  # fmt: skip
def test_dpo_loss_is_that_of_trl(
    lengths, kl_coef, nll_coef, value, slope, reward_chosen, accuracy
):
    new = new_log_probs()
    mask = torch.arange(5) < torch.tensor([*lengths, 4, 5, 1, 2])[:, None]
    loss, stats = dpo.dpo_loss(new, REF, mask, kl_coef, nll_coef)
    (gradient,) = torch.autograd.grad(loss, new)
    assert loss.item() == pytest.approx(value, abs=1e-11)
    assert (gradient * PROBE).sum().item() == pytest.approx(slope, abs=1e-11)
    assert stats["reward_chosen"].item() == pytest.approx(reward_chosen, abs=1e-11)
    assert stats["reward_accuracy"].item() == pytest.approx(accuracy)
