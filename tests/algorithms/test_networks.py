"""Networks as they start, and as they are when somebody edits them."""

import math
from copy import deepcopy

import pytest
import torch
from helpers import GAUSSIAN, PIXELS, SCRIPTS, env_id, module, train
from torch import nn
from torch.func import functional_call


def parts(script: str) -> dict[str, nn.Sequential]:
    """The networks of a fresh actor and critic by name, for 5 inputs and 3 outputs."""
    torch.manual_seed(0)
    found = module(script)
    actor = found.Actor(5, 3)
    if script == "sac":
        critic = found.Critic(5, 3)
        return {"actor": actor.mean_and_log_std, "q1": critic.q1, "q2": critic.q2}
    nets = {"actor": actor.mean if script in GAUSSIAN else actor.logits}
    if script in GAUSSIAN:
        nets["critic"] = found.Critic(5, actor.norm).value
    elif script != "reinforce":
        nets["critic"] = found.Critic(5).value
    return nets


mlps = [name for name in SCRIPTS if name not in PIXELS]  # of the others: test_images.py
tanh = pytest.mark.parametrize("script", [name for name in mlps if name != "sac"])


@tanh
def test_fresh_networks_are_orthogonal_with_the_gains_of_the_baselines(script):
    """W W^T or W^T W is gain^2 times the identity: gain sqrt(2) in hidden layers, 0.01 in the
    policy's last and 1 in the critic's. No biases."""
    for name, net in parts(script).items():
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        gains = [math.sqrt(2), math.sqrt(2), 0.01 if name == "actor" else 1.0]
        assert [tuple(layer.weight.shape) for layer in layers[:2]] == [(64, 5), (64, 64)]
        for layer, gain in zip(layers, gains, strict=True):
            w = layer.weight.detach().double()
            gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
            expected = gain**2 * torch.eye(len(gram), dtype=torch.float64)
            torch.testing.assert_close(gram, expected, rtol=1e-5, atol=1e-6 * gain**2)
            assert not layer.bias.any()
        assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh] * 2 + [nn.Linear]


def test_the_networks_of_sac_start_with_pytorchs_weights(tmp_path):
    """256 ReLU units twice; uniform up to 1 / sqrt(inputs), biases too. Every network is drawn
    on its own, but the target networks begin as the critics."""
    nets = parts("sac")
    for name, net in nets.items():
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        assert [type(layer) for layer in net] == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]
        width, outputs = (5, 6) if name == "actor" else (8, 1)
        shapes = [tuple(layer.weight.shape) for layer in layers]
        assert shapes == [(256, width), (256, 256), (outputs, 256)]
        for layer in layers:
            bound = 1 / math.sqrt(layer.in_features)
            assert layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert layer.bias.any()
    assert not torch.equal(nets["q1"][0].weight, nets["q2"][0].weight)
    flags = {"total_timesteps": 32, "learning_rate": 0.0, "tau": 0.5}
    _, checkpoint = train("sac", tmp_path / "run", env_id="TapeBox-v0", **flags)
    assert len(checkpoint["target"]) == 12
    for key, value in checkpoint["critic"].items():
        torch.testing.assert_close(value, checkpoint["target"][key], rtol=0, atol=0)
        if key.startswith("q1"):
            assert not torch.equal(value, checkpoint["critic"][key.replace("q1", "q2")])
    assert checkpoint["temperature"]["log_alpha"].item() == 0


def test_gaussians_start_at_the_logarithm_of_init_std():
    for std in (1.0, 0.5, 3.0):
        actor = module("ppo_continuous").Actor(3, 2, std)
        assert actor.log_std.tolist() == pytest.approx([math.log(std)] * 2)


@tanh
def test_networks_are_what_training_starts_from(script, tmp_path):
    """The weights of a run that learns nothing have these gains as well."""
    name = env_id(script, "Tape-v0")
    flags = {"total_timesteps": 64, "init_std": 0.25, "learning_rate": 0.0, "target_kl": 1e-9}
    flags = {k: v for k, v in flags.items() if k in module(script).Args.__dataclass_fields__}
    _, checkpoint = train(script, tmp_path / "run", env_id=name, **flags)
    head = "mean" if script in GAUSSIAN else "logits"
    last = checkpoint["actor"][f"{head}.4.weight"].double()
    expected = 1e-4 * torch.eye(len(last), dtype=torch.float64)
    torch.testing.assert_close(last @ last.T, expected, rtol=0.05, atol=5e-6)
    if "critic" in checkpoint:
        assert checkpoint["critic"]["value.4.weight"].norm().item() == pytest.approx(
            1, rel=1e-4
        )
    if script in GAUSSIAN:
        assert checkpoint["actor"]["log_std"].tolist() == pytest.approx(
            [math.log(0.25)] * 2, abs=1e-4
        )


@pytest.mark.parametrize("script", mlps)
def test_an_edited_layer_is_the_layer_that_is_used(script):
    """Another activation, other weights through functional_call, forward hooks, copies."""
    usual, edit = (torch.relu, nn.Tanh) if script == "sac" else (torch.tanh, nn.ReLU)
    for net in parts(script).values():
        x = torch.randn(7, net[0].in_features)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn_like(p))
        w = [(layer.weight, layer.bias) for layer in net if isinstance(layer, nn.Linear)]

        def by_hand(x, activation, w=w):
            for weight, bias in w[:-1]:
                x = activation(x @ weight.T + bias)
            return x @ w[-1][0].T + w[-1][1]

        torch.testing.assert_close(net(x), by_hand(x, usual))
        zeros = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
        assert not functional_call(net, zeros, x).any()
        seen = []
        hook = net[2].register_forward_hook(lambda *a, seen=seen: seen.append(a[2].shape))
        net(x)
        hook.remove()
        assert seen == [(7, net[2].out_features)]
        other = deepcopy(net)
        other[1], other[3] = edit(), edit()
        torch.testing.assert_close(other(x), by_hand(x, edit()))
        assert not torch.allclose(other(x), net(x))


@pytest.mark.parametrize("script", mlps)
def test_an_edit_of_the_network_reaches_the_training(script, tmp_path, monkeypatch):
    """Two runs that differ in mlp() alone end with other weights, and a hook counts passes."""
    found, name = module(script), env_id(script, "Tape-v0")
    _, usual = train(script, tmp_path / "usual", env_id=name, total_timesteps=64)
    mlp, passes = found.mlp, []

    def edited(*args, **kwargs):
        net = mlp(*args, **kwargs)
        net[1] = nn.Sigmoid()
        net[1].register_forward_hook(lambda *_: passes.append(1))
        return net

    monkeypatch.setattr(found, "mlp", edited)
    _, other = train(script, tmp_path / "other", env_id=name, total_timesteps=64)
    assert len(passes) > 32
    for key in ("actor", "critic"):
        if key in usual:
            weights = [name for name in usual[key] if name.endswith("0.weight")]
            assert weights
            assert any(not torch.equal(usual[key][w], other[key][w]) for w in weights)
