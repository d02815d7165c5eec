"""A causal language model of Hugging Face's transformers, as the policy of a task.

The scripts for language models ask a policy for the methods of their own GPT; here they are for
any model that `AutoModelForCausalLM` loads from a folder or a GGUF file. Copy this file beside
the script, and let the function that --task names return a HuggingFace:

    def cheerful(path, lora_rank=16):
        return HuggingFace(path, lora_rank), prompts, reward

What would make training silently wrong is refused with a ValueError, which a script prints as
one line: weights that are missing, a model that looks ahead, an end that it cannot write. A
model whose cache does not give the logits that it has without one is sampled without.

    pip install transformers peft        (and gguf, for files that end with .gguf)
"""

import inspect
import math
from copy import deepcopy
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache


def trained_alone(module: nn.Module, state: dict, prefix: str, _) -> None:
    """Leave in a state_dict what is trained: the rest is in the model's own folder."""
    kept = {prefix + name for name, p in module.named_parameters() if p.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in kept]:
        del state[name]


def forget_missing(module: nn.Module, keys) -> None:
    """Let a state_dict of what is trained be loaded."""
    keys.missing_keys.clear()


class HuggingFace(nn.Module):
    """The model at `path`. With a `lora_rank`, adapters of this rank in all linear layers are
    trained, and its own weights are not; without, all weights are. `dtype` is that of its own
    weights; adapters and logits are float32."""

    def __init__(self, path: str, lora_rank: int = 0, dtype: str = "float32"):
        super().__init__()
        if dtype != "float32" and not lora_rank:  # small steps would be rounded away
            raise ValueError(f"weights in {dtype} cannot be trained: give a lora_rank")
        folder, options = Path(path).expanduser(), {"local_files_only": True}
        if not folder.exists():
            raise ValueError(f"there is no {folder.resolve()}; name its place in --task-kwargs")
        if folder.suffix == ".gguf":
            folder, options["gguf_file"] = folder.parent, folder.name
        more = {"dtype": getattr(torch, dtype), "output_loading_info": True}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model, found = AutoModelForCausalLM.from_pretrained(folder, **options, **more)
        except Exception as error:  # files that are damaged fail in many ways
            raise ValueError(f"{path} cannot be loaded: {error}") from error
        if bad := [*found["missing_keys"], *found["mismatched_keys"]]:
            raise ValueError(f"{path} lacks the weights of {bad[:3]}, {len(bad)} in all")
        config = model.config.get_text_config()
        self.context = getattr(config, "max_position_embeddings", None) or math.inf
        self.size = config.vocab_size
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id}
        ends = sorted(end for end in ends if end is not None)
        if not ends or max(ends) >= self.size:
            raise ValueError(f"{path} needs a token that ends a text below {self.size}: {ends}")
        self.register_buffer("eos", torch.tensor(ends), persistent=False)
        known = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in known else "past_key_values"  # new, old
        self.keeps = "logits_to_keep" in known
        if lora_rank:  # alpha = rank: the product of the thin matrices is added as it is
            layers = {"target_modules": "all-linear", "lora_alpha": lora_rank}
            try:
                model = get_peft_model(model, LoraConfig("CAUSAL_LM", r=lora_rank, **layers))
            except ValueError as error:
                raise ValueError(f"{path} takes no adapters: {error}") from error
        self.model, self.cached = model, True
        self.eval()  # no dropout
        self.register_state_dict_post_hook(trained_alone)
        self.register_load_state_dict_post_hook(forget_missing)
        self.check(path)

    @torch.no_grad()
    def check(self, path: str) -> None:
        """Refuse a model whose earlier logits depend on later tokens; do without a cache that
        changes logits."""
        tokens = torch.arange(16).view(2, 8) % self.size
        close = {"rtol": 0.0, "atol": 1e-3 if self.model.dtype == torch.float32 else 0.3}
        try:
            all_at_once, shorter = self(tokens).log_softmax(-1), self(tokens[:, :-3])
        except Exception as error:
            raise ValueError(f"{path} gives no logits: {error}") from error
        if not torch.allclose(shorter.log_softmax(-1), all_at_once[:, :-3], **close):
            raise ValueError(f"{path} lets a token see what follows it")
        try:
            cache = self.new_cache()
            parts = [tokens[:, :-3], *tokens[:, -3:].split(1, 1)]
            one_by_one = torch.cat([self(part, cache) for part in parts], 1).log_softmax(-1)
            self.cached = torch.allclose(one_by_one, all_at_once, **close)
        except Exception:  # a model with a cache of another kind fails in its own way
            self.cached = False
        if not self.cached:
            print(f"{path}: sampling without a cache, which would change logits", flush=True)

    def new_cache(self):
        """What transformers calls a cache, or a list that holds the text so far."""
        config = self.model.config.get_text_config(decoder=True)
        return DynamicCache(config=config) if self.cached else []

    def forward(self, tokens: Tensor, cache=None, keep: int = 0) -> Tensor:
        """Logits of the last `keep` tokens; of all, if it is 0."""
        if isinstance(cache, list):
            cache.append(tokens)
            tokens, keep, cache = torch.cat(cache, 1), keep or tokens.shape[1], None
        options = {"use_cache": cache is not None}
        if cache is not None:
            options[self.cache_name] = cache
        if self.keeps and keep:
            options["logits_to_keep"] = keep
        logits = self.model(input_ids=tokens, **options).logits.float()
        return logits[:, -keep:]

    def hidden(self, tokens: Tensor) -> Tensor:
        """The states (batch, length, width) of which logits are made."""
        options = {"logits_to_keep": 1} if self.keeps else {}
        output = self.model(
            input_ids=tokens, use_cache=False, output_hidden_states=True, **options
        )
        return output.hidden_states[-1].float()

    def encode(self, text: str) -> list[int]:
        """With the token that begins a text, unless it is written there, as a chat template
        does; without what some tokenizers append."""
        begin = self.tokenizer.bos_token
        plain = self.tokenizer.encode(text, add_special_tokens=False)
        begun = bool(begin) and text.startswith(begin)
        whole = plain if begun else self.tokenizer.encode(text)
        starts = (k for k in range(len(whole)) if whole[k : k + len(plain)] == plain)
        tokens = whole[: next(starts, len(whole)) + len(plain)]
        if tokens and max(tokens) >= self.size:
            raise ValueError(f"{text!r} has tokens that the model does not know")
        return tokens

    def decode(self, tokens: list[int]) -> str:
        ends = self.eos.tolist()
        return self.tokenizer.decode([token for token in tokens if token not in ends])

    def save(self, folder: str) -> None:
        """Write a Hugging Face folder. Adapters are merged into a copy of the weights."""
        model = deepcopy(self.model)
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        if quantizer := getattr(model, "hf_quantizer", None):  # a GGUF file, read as floats
            quantizer.remove_quantization_config(model)
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
