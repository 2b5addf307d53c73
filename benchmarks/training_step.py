"""Cost of a training step: Stage I, Stage II in all its ways, plain fine-tuning, and recomputing per step, on the same tokens.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --size 7b --prompt 8192 --device cuda --dtype bfloat16 --without recompute

A step is forward and backward, without the optimizer, on one row: a prompt, K latent slots, an answer; random weights. All ways
take turns, and medians are compared with plain fine-tuning of the same run, which sees the slots as ordinary tokens. `kept` is what
autograd keeps between the two passes, weights aside. `recompute` runs the whole prompt again for every latent, without a
cache, as code that follows Coconut does. The last table compares a latent step with a step of greedy decoding, without head
and sampling on both sides.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import torch
from torch.nn.functional import cross_entropy
from transformers import CONFIG_MAPPING, DynamicCache, set_seed

from storm_hf import StormConfig, StormForConditionalGeneration
from storm_hf.align.objective import trajectory_alignment
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.device import PEAK_FLOPS_PER_SECOND
from storm_hf.training.trainer import freeze_vision, keep_supervised


START, LATENT, END = 1, 2, 3  # token ids; the prompt's are larger
SIZES = {  # hidden size, layers, heads, key-value heads, intermediate size, vocabulary
    "small": (256, 8, 8, 2, 768, 512),
    "medium": (768, 12, 12, 4, 2048, 8192),
    "7b": (3584, 28, 28, 4, 18944, 152064),  # the language model of Qwen2.5-VL-7B
}
MIB = 2**20


def build(size: str, device: str, dtype: torch.dtype) -> StormForConditionalGeneration:
    """A random STORM around a Qwen2.5-VL whose language model has a given size; its vision tower is tiny and not used."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary = SIZES[size]
    head = hidden // heads
    text = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [head // 2 - 2 * (3 * head // 16), 3 * head // 16, 3 * head // 16],
        },
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": hidden}
    ids = {"latent_start_token_id": START, "latent_token_id": LATENT, "latent_end_token_id": END}
    config = StormConfig(vlm_config=CONFIG_MAPPING["qwen2_5_vl"](text_config=text, vision_config=vision), **ids)
    set_seed(0)
    with torch.device(device):
        model = StormForConditionalGeneration._from_config(config, dtype=dtype)
    freeze_vision(model)
    return model.train()


@dataclass(frozen=True)
class Row:
    """A prompt, K latent slots and an answer, one row; all but the answer is not supervised."""

    prompt: torch.Tensor
    num_latents: int
    answer: torch.Tensor

    def batch(self) -> dict[str, torch.Tensor]:
        """Model inputs, cut to the supervised columns as the trainers do."""
        block = torch.tensor([[START, *[LATENT] * self.num_latents, END]], device=self.prompt.device)
        input_ids = torch.cat([self.prompt, block, self.answer], dim=1)
        labels = input_ids.clone()
        labels[:, : -self.answer.shape[1]] = -100
        return keep_supervised(
            {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}
        )


def plain(model: StormForConditionalGeneration, row: Row) -> torch.Tensor:
    """Supervised fine-tuning: the slots are ordinary tokens, one pass."""
    model.config.latent_token_id = None
    try:
        return model(**row.batch(), use_cache=False).loss
    finally:
        model.config.latent_token_id = LATENT


def stage_one(model: StormForConditionalGeneration, row: Row) -> torch.Tensor:
    """Teacher forcing, with the loss of alignment."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(1, row.num_latents, model.config.hidden_size, generator=generator).to(row.prompt.device)
    output = model(**row.batch(), forced_latents=targets, use_cache=False)
    return output.loss + 3 * trajectory_alignment(output.latents, targets, "cosine_mse", "mean").loss.sum()


def stage_two(gradient: RolloutGradient | None) -> Callable[[StormForConditionalGeneration, Row], torch.Tensor]:
    """The rollout, with its exact gradient or a cheaper one."""
    return lambda model, row: model(**row.batch(), use_cache=False, rollout_gradient=gradient).loss


def recompute(model: StormForConditionalGeneration, row: Row) -> torch.Tensor:
    """The whole sequence again for every latent, without a cache."""
    embed, body = model.get_input_embeddings(), model.backbone.base_model
    start = torch.full_like(row.prompt[:, :1], START)
    embeds = embed(torch.cat([row.prompt, start], dim=1))
    for _ in range(row.num_latents):
        state = body(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, -1:]
        latent = model.model.latent_projector(state) * model.config.latent_scale
        embeds = torch.cat([embeds, latent], dim=1)
    rest = torch.cat([torch.full_like(start, END), row.answer], dim=1)
    states = body(inputs_embeds=torch.cat([embeds, embed(rest)], dim=1), use_cache=False).last_hidden_state
    num_answer = row.answer.shape[1]
    logits = model.compute_logits(states[:, -num_answer - 1 : -1]).float()
    return cross_entropy(logits.flatten(0, 1), row.answer.flatten())


@dataclass(frozen=True)
class Way:
    """One way to make a training step."""

    loss: Callable[[StormForConditionalGeneration, Row], torch.Tensor]
    is_checkpointed: bool = False


WAYS = {
    "plain": Way(plain),
    "plain, checkpointed": Way(plain, True),
    "Stage I": Way(stage_one),
    "Stage I, checkpointed": Way(stage_one, True),
    "Stage II": Way(stage_two(None)),
    "Stage II, checkpointed": Way(stage_two(None), True),
    "Stage II, detach_prompt": Way(stage_two(RolloutGradient(detach_prompt=True))),
    "Stage II, truncate_steps=2": Way(stage_two(RolloutGradient(truncate_steps=2))),
    "Stage II, jacobi_sweeps=2": Way(stage_two(RolloutGradient(jacobi_sweeps=2))),
    "Stage II, jacobi_sweeps=2, checkpointed": Way(stage_two(RolloutGradient(jacobi_sweeps=2)), True),
    "recompute": Way(recompute),
}


@dataclass(frozen=True)
class Cost:
    """One step."""

    seconds: float
    kept_bytes: int
    peak_bytes: int


def measure(model: StormForConditionalGeneration, way: Way, row: Row) -> Cost:
    """Make one step and say what it cost."""
    if way.is_checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
    model.zero_grad(set_to_none=True)
    on_cuda = row.prompt.is_cuda
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    _wait(on_cuda)
    begin = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = way.loss(model, row)
    loss.backward()
    _wait(on_cuda)
    seconds = time.perf_counter() - begin
    return Cost(seconds, sum(kept.values()), torch.cuda.max_memory_allocated() if on_cuda else 0)


def _wait(on_cuda: bool) -> None:
    if on_cuda:
        torch.cuda.synchronize()


def compare(model: StormForConditionalGeneration, ways: dict[str, Way], row: Row, repetitions: int) -> None:
    """Measure all ways in turn, and print medians beside plain fine-tuning."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            cost = measure(model, way, row)
            if repetition:  # the first round warms up
                costs[name].append(cost)
    seconds = {name: statistics.median(cost.seconds for cost in found) for name, found in costs.items()}
    length = row.batch()["input_ids"].shape[1]
    weights = sum(parameter.numel() for parameter in model.get_decoder().parameters())
    weights += model.get_output_embeddings().weight.numel() - model.get_input_embeddings().weight.numel()
    peak = PEAK_FLOPS_PER_SECOND.get(torch.cuda.get_device_name()) if row.prompt.is_cuda else None
    utilisation = " MFU |" if peak else ""
    print(f"\nK = {row.num_latents}, prompt {row.prompt.shape[1]}, answer {row.answer.shape[1]}\n")
    print(f"| step | seconds | / plain | / recompute | kept, MiB | / recompute | peak, MiB |{utilisation}")
    print(f"|---|---|---|---|---|---|---|{'---|' if peak else ''}")
    for name, found in costs.items():
        kept = found[0].kept_bytes
        again = costs.get("recompute")
        slower = f"{seconds[name] / seconds['recompute']:.3f}" if again else "-"
        more = f"{kept / again[0].kept_bytes:.3f}" if again else "-"
        peak_mib = f"{found[0].peak_bytes / MIB:.0f}" if found[0].peak_bytes else "-"
        line = f"| {name} | {seconds[name]:.3f} | {seconds[name] / seconds['plain']:.2f} | {slower} | {kept / MIB:.1f} | {more} "
        share = f" {6 * weights * length / seconds[name] / peak:.3f} |" if peak else ""
        print(f"{line}| {peak_mib} |{share}")


@torch.no_grad()
def compare_decoding(model: StormForConditionalGeneration, row: Row, repetitions: int) -> None:
    """A latent step beside a step of plain greedy decoding, in caches of the same length."""
    model.eval()
    body, batch = model.backbone.base_model, row.batch()
    prompt = batch["input_ids"][:, : row.prompt.shape[1] + 1]
    stop = prompt.shape[1] + row.num_latents
    times: dict[str, list[float]] = {"latent": [], "greedy": []}

    def prefilled() -> DynamicCache:
        cache = DynamicCache(config=model.config.get_text_config())
        model.model(input_ids=prompt, attention_mask=torch.ones_like(prompt), cache=cache)
        return cache

    for _ in range(repetitions + 1):
        cache = prefilled()
        block = batch["input_ids"][:, prompt.shape[1] : stop]
        mask = torch.ones_like(batch["input_ids"][:, :stop])
        positions = torch.arange(stop, device=prompt.device).expand(4, 1, -1)
        begin = _now(prompt.is_cuda)
        model.model(
            input_ids=block,
            attention_mask=mask,
            position_ids=positions[..., prompt.shape[1] :],
            cache=cache,
        )
        times["latent"].append(_now(prompt.is_cuda) - begin)
        cache = prefilled()
        begin = _now(prompt.is_cuda)
        for column in range(prompt.shape[1], stop):
            body(
                input_ids=block[:, :1],
                attention_mask=mask[:, : column + 1],
                position_ids=positions[..., column : column + 1],
                cache=cache,
                use_cache=True,
            )
        times["greedy"].append(_now(prompt.is_cuda) - begin)
    latent, greedy = (statistics.median(found[1:]) / row.num_latents for found in times.values())
    print(f"\nlatent step {1000 * latent:.3f} ms, greedy step {1000 * greedy:.3f} ms: ratio {latent / greedy:.3f}")
    model.train()


def _now(on_cuda: bool) -> float:
    _wait(on_cuda)
    return time.perf_counter()


def main() -> None:
    """Print a table for each K, then the decoding steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument("--num-latents", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--without", nargs="+", default=[], help="names of steps to leave out, or their beginnings")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    model = build(arguments.size, arguments.device, getattr(torch, arguments.dtype))
    ways = {name: way for name, way in WAYS.items() if not name.startswith(tuple(arguments.without) or "-")}
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()}, one thread"
    print(f"{arguments.size}, {arguments.dtype}, {where}, torch {torch.__version__}, {date.today()}")
    generator = torch.Generator().manual_seed(0)
    for num_latents in arguments.num_latents:
        prompt, answer = (
            torch.randint(5, 500, (1, length), generator=generator).to(arguments.device)
            for length in (arguments.prompt, arguments.answer)
        )
        row = Row(prompt, num_latents, answer)
        compare(model, ways, row, arguments.repetitions)
        compare_decoding(model, row, 2 * arguments.repetitions)


if __name__ == "__main__":
    main()
