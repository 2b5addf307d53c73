"""Ways to make an answer with the same weights: ours, plain transformers, and faithful versions of how others think in latents.

`benchmarks/answers.py` and `benchmarks/gpu_answers.py` measure them. Models have random weights and the shape of a language model
inside Qwen2.5-VL; prompts are text of random tokens, so that no vision tower, which is the same for all, blurs what differs. All
ways are greedy, and write a fixed number of tokens.

Axes: B batch, S prompt, K latent steps, A answer, D hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import CONFIG_MAPPING, CompileConfig, DynamicCache, set_seed

from storm_hf import StormConfig, StormForConditionalGeneration


PAD, START, LATENT, END, PAUSE = 0, 1, 2, 3, 4  # token ids; those of words are larger
FIRST_WORD = 5
MAX_LATENTS = 32


@dataclass(frozen=True)
class Shape:
    """Size of a language model.

    Args:
        hidden_size (`int`):
            Width D of the hidden states.
        num_layers (`int`):
            Decoder layers.
        num_heads (`int`):
            Heads of the queries.
        num_key_value_heads (`int`):
            Heads of the keys and values.
        intermediate_size (`int`):
            Width of the feed-forward layers.
        vocab_size (`int`):
            Number of tokens.
        is_tied (`bool`, *optional*, defaults to `True`):
            Whether the head is the matrix of the token embeddings.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    is_tied: bool = True


SIZES = {
    "tiny": Shape(32, 2, 4, 2, 48, 128),
    "1m": Shape(128, 4, 4, 2, 384, 2048),
    "135m": Shape(576, 30, 9, 3, 1536, 49152),  # SmolLM2-135M
    "360m": Shape(960, 32, 15, 5, 2560, 49152),  # SmolLM2-360M
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, is_tied=False),  # the language model of Qwen2.5-VL-7B
}


def make_config(shape: Shape) -> StormConfig:
    """Configure a STORM around a Qwen2.5-VL of a given shape; its vision tower is tiny and not used."""
    head_size = shape.hidden_size // shape.num_heads
    side = 3 * head_size // 16  # share of height and of width, as in Qwen2.5-VL
    text = {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": 32768,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [head_size // 2 - 2 * side, side, side],
        },
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": None,  # so that each way writes as many tokens as it is asked for
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": shape.hidden_size,
    }
    backbone = CONFIG_MAPPING["qwen2_5_vl"](
        text_config=text, vision_config=vision, tie_word_embeddings=shape.is_tied, pad_token_id=PAD
    )
    ids = {"latent_start_token_id": START, "latent_token_id": LATENT, "latent_end_token_id": END}
    return StormConfig(vlm_config=backbone, max_num_latents=MAX_LATENTS, **ids)


def build(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> StormForConditionalGeneration:
    """Make a random STORM of a size in `SIZES`."""
    set_seed(0)
    with torch.device(device):
        model = StormForConditionalGeneration._from_config(make_config(SIZES[size]), dtype=dtype)
    for part in (model, model.backbone):
        part.generation_config.update(pad_token_id=PAD, bos_token_id=None, eos_token_id=None)
    return model.eval()


def random_prompt(model: StormForConditionalGeneration, num_rows: int, num_tokens: int) -> torch.Tensor:
    """Draw prompts of random words, the same for each call, of shape `(num_rows, num_tokens)`."""
    generator = torch.Generator().manual_seed(0)
    vocab_size = model.config.get_text_config().vocab_size
    return torch.randint(FIRST_WORD, vocab_size, (num_rows, num_tokens), generator=generator).to(model.device)


@dataclass(frozen=True)
class Request:
    """Prompts and the length of their answers.

    Args:
        prompt (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            The prompts, equally long.
        num_tokens (`int`):
            Length A of the answers.
        is_static (`bool`, *optional*, defaults to `False`):
            Whether `generate` uses a static cache.
        is_compiled (`bool`, *optional*, defaults to `False`):
            Whether decoding steps are compiled, which needs a static cache.
    """

    prompt: torch.Tensor
    num_tokens: int
    is_static: bool = False
    is_compiled: bool = False

    def options(self) -> dict[str, Any]:
        """Arguments of `generate`, the prompt and the number of tokens aside."""
        options: dict[str, Any] = {"do_sample": False}
        if self.is_static:
            options |= {"cache_implementation": "static", "disable_compile": not self.is_compiled}
        if self.is_compiled:
            options["compile_config"] = CompileConfig()
            options["compile_config"]._compile_all_devices = True  # by default CPUs are left out
        return options


@dataclass(frozen=True)
class Answer:
    """An answer, and the latents before it.

    Args:
        tokens (`torch.LongTensor` of shape `(batch_size, num_tokens)`):
            The answer.
        latents (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`, *optional*):
            The latents; `None` for a way without.
    """

    tokens: torch.Tensor
    latents: torch.Tensor | None = None


Method = Callable[[StormForConditionalGeneration, Request], Answer]


def storm(model: StormForConditionalGeneration, request: Request, num_latents: int) -> Answer:
    """Answer with STORM, as a user does; K = 0 is the direct answer."""
    output = model.generate(
        request.prompt,
        num_latents=num_latents,
        max_new_tokens=request.num_tokens,
        output_latents=num_latents > 0,
        return_dict_in_generate=True,
        **request.options(),
    )
    return Answer(output.sequences[:, request.prompt.shape[1] :], output.get("latents"))


def plain(
    model: StormForConditionalGeneration, request: Request, num_before: int = 0, num_pauses: int | None = None
) -> Answer:
    """Answer with the backbone alone, by `generate` of transformers.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model whose backbone answers.
        request ([`Request`]):
            The prompts.
        num_before (`int`, *optional*, defaults to `0`):
            Tokens that are written before the answer, as a chain of thought is.
        num_pauses (`int`, *optional*):
            Pause tokens at the end of the prompt, between two markers.
    """
    prompt = request.prompt
    if num_pauses is not None:
        block = prompt.new_tensor([START, *[PAUSE] * num_pauses, END]).expand(len(prompt), -1)
        prompt = torch.cat([prompt, block], dim=1)
    num_tokens = num_before + request.num_tokens
    mask = torch.ones_like(prompt)
    sequences = model.backbone.generate(prompt, attention_mask=mask, max_new_tokens=num_tokens, **request.options())
    return Answer(sequences[:, prompt.shape[1] + num_before :])


def row_by_row(model: StormForConditionalGeneration, request: Request, num_latents: int) -> Answer:
    """Answer one prompt after the other, as code whose batch size has to be 1."""
    rows = [storm(model, replace(request, prompt=row[None]), num_latents) for row in request.prompt]
    return Answer(torch.cat([row.tokens for row in rows]), torch.cat([row.latents for row in rows]))


class Passes:
    """Forward passes of the backbone on embeddings, with a cache or over the whole sequence each time."""

    def __init__(self, model: StormForConditionalGeneration, has_cache: bool) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config.get_text_config()) if has_cache else None
        self.read: list[torch.Tensor] = []

    def __call__(self, embeds: torch.Tensor) -> torch.Tensor:
        """Read embeddings (B, n, D) after those read before, and return the last hidden state (B, D)."""
        past = sum(piece.shape[1] for piece in self.read)
        self.read.append(embeds)
        num_rows, stop = len(embeds), past + embeds.shape[1]
        first = 0 if self.cache is None else past
        states = self.model.backbone.base_model(
            inputs_embeds=torch.cat(self.read, dim=1) if self.cache is None else embeds,
            attention_mask=torch.ones(num_rows, stop, dtype=torch.long, device=embeds.device),
            position_ids=torch.arange(first, stop, device=embeds.device).expand(4, num_rows, -1),
            cache=self.cache,
            use_cache=self.cache is not None,
        ).last_hidden_state
        return states[:, -1]


@torch.no_grad()
def by_hand(
    model: StormForConditionalGeneration,
    request: Request,
    num_latents: int,
    caches_latents: bool = True,
    caches_answer: bool = True,
) -> Answer:
    """Think and answer in a loop of one's own, as a fork of `generate` does: one call for each step, and a look at each token.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        request ([`Request`]):
            The prompts.
        num_latents (`int`):
            Number K of latent steps.
        caches_latents (`bool`, *optional*, defaults to `True`):
            False runs the whole sequence again for each latent.
        caches_answer (`bool`, *optional*, defaults to `True`):
            False runs it again for each token of the answer.
    """
    embed, num_rows = model.get_input_embeddings(), len(request.prompt)
    passes = Passes(model, has_cache=caches_latents)
    marker = torch.full((num_rows, 1), START, device=request.prompt.device)
    state = passes(embed(torch.cat([request.prompt, marker], dim=1)))
    latents = []
    for _ in range(num_latents):
        latents.append(model.model.latent_projector(state))
        state = passes(latents[-1][:, None] * model.config.latent_scale)
    if caches_answer and not caches_latents:  # one more pass, which fills a cache
        passes, before = Passes(model, has_cache=True), passes.read
        passes(torch.cat(before, dim=1))
    if not caches_answer:
        passes.cache = None
    tokens = _decode(model, passes, passes(embed(torch.full_like(marker, END))), request.num_tokens)
    return Answer(tokens, torch.stack(latents, dim=1))


def _decode(
    model: StormForConditionalGeneration, passes: Passes, state: torch.Tensor, num_tokens: int
) -> torch.Tensor:
    """Write tokens greedily; no latent token is written."""
    tokens: list[torch.Tensor] = []
    while True:
        logits = model.compute_logits(state).float()
        logits[:, list(model.config.latent_block_ids)] = -torch.inf
        tokens.append(logits.argmax(dim=-1, keepdim=True))
        tokens[-1].tolist()  # a fork looks at each row for the end of its answer
        if len(tokens) == num_tokens:
            return torch.cat(tokens, dim=1)
        state = passes(model.get_input_embeddings()(tokens[-1]))


@dataclass(frozen=True)
class Way:
    """One way to make an answer.

    Args:
        name (`str`):
            As tables say it.
        answer (`Callable`):
            From a model and a [`Request`] to an [`Answer`].
        num_latents (`int`, *optional*):
            Number K of latents that have to be STORM's own; `None` for a way without latents.
    """

    name: str
    answer: Method
    num_latents: int | None = None


NUM_LATENTS, CHAINS = (4, 8, 16), (32, 128, 512)
_SLOW = {
    "recompute latents": partial(by_hand, caches_latents=False),
    "recompute latents and answer": partial(by_hand, caches_latents=False, caches_answer=False),
    "row by row": row_by_row,
    "Python loop": by_hand,
}


def first_token(model: StormForConditionalGeneration, request: Request) -> Answer:
    """Read the prompt and write one token: the prefill."""
    return plain(model, replace(request, num_tokens=1))


def all_ways() -> dict[str, Way]:
    """Make every way, by name."""
    ways = [
        Way("first token, transformers", first_token),
        Way("direct, transformers", plain),
        Way("direct", partial(storm, num_latents=0)),
        *(Way(f"pause K={count}", partial(plain, num_pauses=count)) for count in NUM_LATENTS[1:2]),
        *(Way(f"STORM K={count}", partial(storm, num_latents=count), count) for count in NUM_LATENTS),
        *(Way(f"text {length}", partial(plain, num_before=length)) for length in CHAINS),
        *(
            Way(f"{name} K={count}", partial(method, num_latents=count), count)
            for name, method in _SLOW.items()
            for count in NUM_LATENTS[1:]
        ),
    ]
    return {way.name: way for way in ways}
