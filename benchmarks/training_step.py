"""Cost of a training step: Stage I, Stage II in all its ways, plain fine-tuning, and recomputing per step, on the same tokens.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --size 135m --prompt 48 --batch 12 --autocast --without plain recompute --train adapter
    python benchmarks/training_step.py --size 7b --prompt 8192 --device cuda --dtype bfloat16 --without recompute

A step is forward and backward, without the optimizer, on rows of a prompt, K latent slots and an answer; random weights. It
reads each weight once, as the trainers do; "in every pass" is the step without that. All ways take turns, and medians are compared
with plain fine-tuning of the same run, or with the first way that is there; the former sees the slots as ordinary tokens. `kept` is what
autograd keeps between the two passes, weights aside. `recompute` runs the whole prompt again for every latent, without a
cache, as code that follows Coconut does. The last table compares a latent step with a step of greedy decoding, without head
and sampling on both sides.
"""

import argparse
import contextlib
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformers import CONFIG_MAPPING, DynamicCache, set_seed

from storm_hf import StormConfig, StormForConditionalGeneration
from storm_hf.align.objective import trajectory_alignment
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.device import PEAK_FLOPS_PER_SECOND
from storm_hf.training.precision import frozen_weights_cast
from storm_hf.training.thought_adapter import leave_to_thought_adapter
from storm_hf.training.trained_weights import freeze_vision
from storm_hf.training.trainer import keep_supervised
from storm_hf.training.weight_gradients import gathered_weight_gradients


START, LATENT, END = 1, 2, 3  # token ids; the prompt's are larger
SIZES = {  # hidden size, layers, heads, key-value heads, intermediate size, vocabulary
    "small": (256, 8, 8, 2, 768, 512),
    "medium": (768, 12, 12, 4, 2048, 8192),
    "135m": (576, 30, 9, 3, 1536, 49152),  # SmolLM2-135M
    "7b": (3584, 28, 28, 4, 18944, 152064),  # the language model of Qwen2.5-VL-7B
}
MIB = 2**20


def build(size: str, device: str, dtype: torch.dtype, trained: str = "whole") -> StormForConditionalGeneration:
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
        "tie_word_embeddings": size == "135m",
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
    if trained == "adapter":
        model.add_thought_adapter(r=16, lora_alpha=32)
        leave_to_thought_adapter(model)
    return model.train()


@dataclass(frozen=True)
class Row:
    """Prompts, K latent slots and answers; all but the answers is not supervised."""

    prompt: torch.Tensor
    num_latents: int
    answer: torch.Tensor

    def batch(self) -> dict[str, torch.Tensor]:
        """Model inputs, cut to the supervised columns as the trainers do."""
        block = torch.tensor([[START, *[LATENT] * self.num_latents, END]], device=self.prompt.device)
        block = block.expand(len(self.prompt), -1)
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
    shape = (len(row.prompt), row.num_latents, model.config.hidden_size)
    targets = torch.randn(shape, generator=generator).to(row.prompt.device)
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
    reads_once: bool = True

    def step(self, model: StormForConditionalGeneration, autocast: torch.dtype | None) -> contextlib.ExitStack:
        """Contexts that the trainers open for a step."""
        once = contextlib.ExitStack()
        if self.reads_once and autocast is not None:
            once.enter_context(frozen_weights_cast(model, autocast))
        if self.reads_once and model.device.type == "cpu" and model.config.thought_adapter is None:
            once.enter_context(gathered_weight_gradients(model))
        return once


WAYS = {
    "plain": Way(plain),
    "plain, checkpointed": Way(plain, True),
    "Stage I": Way(stage_one),
    "Stage I, checkpointed": Way(stage_one, True),
    "Stage I, in every pass": Way(stage_one, reads_once=False),
    "Stage II": Way(stage_two(None)),
    "Stage II, in every pass": Way(stage_two(None), reads_once=False),
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


def measure(model: StormForConditionalGeneration, way: Way, row: Row, autocast: torch.dtype | None = None) -> Cost:
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

    begin = _now(on_cuda)
    with way.step(model, autocast):
        weights |= {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(model, way, row, autocast)
        loss.backward()
    seconds = _now(on_cuda) - begin
    return Cost(seconds, sum(kept.values()), torch.cuda.max_memory_allocated() if on_cuda else 0)


def _loss(model: StormForConditionalGeneration, way: Way, row: Row, autocast: torch.dtype | None) -> torch.Tensor:
    with torch.autocast(row.prompt.device.type, autocast, enabled=autocast is not None):
        return way.loss(model, row)


def print_profile(model: StormForConditionalGeneration, way: Way, row: Row, autocast: torch.dtype | None) -> None:
    """Print the operations of a step that cost most by themselves."""
    model.zero_grad(set_to_none=True)
    activities = [ProfilerActivity.CUDA if row.prompt.is_cuda else ProfilerActivity.CPU]
    with profile(activities=activities) as profiler, way.step(model, autocast):
        _loss(model, way, row, autocast).backward()
    costs = {event.key: event.self_device_time_total or event.self_cpu_time_total for event in profiler.key_averages()}
    calls = {event.key: event.count for event in profiler.key_averages()}
    print("\n| operation | share | calls |\n|---|---|---|")
    for name in sorted(costs, key=costs.__getitem__, reverse=True)[:8]:
        print(f"| `{name}` | {costs[name] / sum(costs.values()):.3f} | {calls[name]} |")


def _wait(on_cuda: bool) -> None:
    if on_cuda:
        torch.cuda.synchronize()


def compare(
    model: StormForConditionalGeneration,
    ways: dict[str, Way],
    row: Row,
    repetitions: int,
    autocast: torch.dtype | None = None,
) -> None:
    """Measure all ways in turn, and print medians beside plain fine-tuning."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            cost = measure(model, way, row, autocast)
            if repetition:  # the first round warms up
                costs[name].append(cost)
    seconds = {name: statistics.median(cost.seconds for cost in found) for name, found in costs.items()}
    length = row.batch()["input_ids"].shape[1]
    weights = sum(parameter.numel() for parameter in model.get_decoder().parameters())
    weights += model.get_output_embeddings().weight.numel() - model.get_input_embeddings().weight.numel()
    peak = PEAK_FLOPS_PER_SECOND.get(torch.cuda.get_device_name()) if row.prompt.is_cuda else None
    utilisation = " MFU |" if peak else ""
    print(
        f"\nK = {row.num_latents}, prompt {row.prompt.shape[1]}, answer {row.answer.shape[1]}, rows {len(row.prompt)}\n"
    )
    print(f"| step | seconds | spread | / first | / recompute | kept, MiB | / recompute | peak, MiB |{utilisation}")
    print(f"|---|---|---|---|---|---|---|---|{'---|' if peak else ''}")
    for name, found in costs.items():
        kept = found[0].kept_bytes
        again = costs.get("recompute")
        slower = f"{seconds[name] / seconds['recompute']:.3f}" if again else "-"
        more = f"{kept / again[0].kept_bytes:.3f}" if again else "-"
        peak_mib = f"{found[0].peak_bytes / MIB:.0f}" if found[0].peak_bytes else "-"
        taken = [cost.seconds for cost in found]
        spread = f"{min(taken):.2f}-{max(taken):.2f}"
        relative = seconds[name] / next(iter(seconds.values()))
        line = f"| {name} | {seconds[name]:.3f} | {spread} | {relative:.2f} | {slower} | {kept / MIB:.1f} | {more} "
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
    """Wall time on a GPU; on a processor, CPU time of the one thread, since others share the machine."""
    _wait(on_cuda)
    return time.perf_counter() if on_cuda else time.process_time()


def main() -> None:
    """Print a table for each K, then the decoding steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument("--num-latents", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--autocast", action="store_true", help="compute in bfloat16")
    parser.add_argument("--train", default="whole", choices=["whole", "adapter"])
    parser.add_argument(
        "--profile", nargs="*", default=[], metavar="STEP", help="print the top costs of these steps too"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--without", nargs="+", default=[], help="names of steps to leave out, or their beginnings")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    model = build(arguments.size, arguments.device, getattr(torch, arguments.dtype), arguments.train)
    autocast = torch.bfloat16 if arguments.autocast else None
    ways = {name: way for name, way in WAYS.items() if not name.startswith(tuple(arguments.without) or "-")}
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()}, one thread"
    print(
        f"{arguments.size}, {arguments.dtype}, {autocast=}, {arguments.train}, {where}, torch {torch.__version__}, {date.today()}"
    )
    generator = torch.Generator().manual_seed(0)
    for num_latents in arguments.num_latents:
        prompt, answer = (
            torch.randint(5, 500, (arguments.batch, length), generator=generator).to(arguments.device)
            for length in (arguments.prompt, arguments.answer)
        )
        row = Row(prompt, num_latents, answer)
        compare(model, ways, row, arguments.repetitions, autocast)
        for name in arguments.profile:
            print(f"\n{name}")
            print_profile(model, WAYS[name], row, autocast)
        if arguments.batch == 1:
            compare_decoding(model, row, 2 * arguments.repetitions)


if __name__ == "__main__":
    main()
