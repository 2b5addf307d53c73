"""`generate` for STORM: stock generation, plus the length, the record and the replacement of latents.

The latent block is part of the prompt, so after the prefill everything is an ordinary language model with an ordinary cache.
This file only edits the block, listens at the rollout's one seam, and lets the backbone answer what generation asks.

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

import inspect
from numbers import Integral
from typing import Any, NoReturn

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, SuppressTokensLogitsProcessor
from transformers.generation.utils import GenerateOutput
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging
from transformers.utils.deprecation import deprecate_kwarg

from .bottleneck_storm import CLIP_INPUTS, ClipFreeRows, refuse_single_patch
from .cache_storm import rollout_state
from .configuration_storm import StormConfig
from .errors_storm import ConfigurationError, LatentError
from .halting_storm import think_until_halted
from .latent_block_storm import PER_TOKEN_INPUTS, find_latent_block, refuse_without_block
from .rollout_storm import LatentIntervention, replaced
from .video_features_storm import prepare_positions, unflatten_features


_OF_ROLLOUT = ("latent_intervention", "forced_latents", "clip_token_mask")  # `generate` takes the other ones itself
_OF_DRAFTS = ("assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens")  # read a cached prompt anew

logger = logging.get_logger(__name__)


class SuppressLatentTokens(SuppressTokensLogitsProcessor):
    """Makes latent tokens impossible to sample. A type of its own: one of stock type would replace `suppress_tokens`."""


class LatentRecorder:
    """Listens at the rollout's seam: keeps what the model made of each step, passes on what `intervene` makes of it.

    It is no part of a copy: an assistant model, which gets a copy of all arguments, thinks undisturbed.
    """

    def __init__(self, intervene: LatentIntervention | None = None) -> None:
        self.intervene = intervene
        self.steps: dict[int, torch.Tensor] = {}
        self.fed: dict[int, torch.Tensor] = {}

    def __call__(self, step: int, latent: torch.Tensor) -> torch.Tensor:
        """Record `latent` (B, D) of `step` and return what is fed."""
        self.steps[step] = latent
        self.fed[step] = latent if self.intervene is None else replaced(self.intervene, step, latent)
        return self.fed[step]

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    @property
    def fed_latents(self) -> torch.Tensor:
        """The latents that were fed, (B, K, D)."""
        return torch.stack([self.fed[step] for step in sorted(self.fed)], dim=1)

    def latents(self, num_rows: int) -> torch.Tensor | None:
        """The latents of `num_rows` returned sequences, (num_rows, K, D); beams of a prompt share theirs."""
        if not self.steps:
            return None
        recorded = torch.stack([self.steps[step] for step in sorted(self.steps)], dim=1)
        rows = torch.arange(num_rows, device=recorded.device) * len(recorded) // num_rows
        return recorded[rows]


def set_num_latents(inputs: dict[str, Any], num_latents: int, config: StormConfig) -> dict[str, Any]:
    """Give the latent block that ends each prompt `num_latents` placeholders, or end the prompts with such a block.

    Args:
        inputs (`dict`):
            Model inputs with left-padded `input_ids`, and `attention_mask`, `mm_token_type_ids` and `position_ids` if there
            are any. They change together.
        num_latents (`int`):
            The wanted K; `0` takes the block away, markers included.
        config ([`StormConfig`]):
            Holds the three token ids and the bound.

    Returns:
        `dict`: A copy of `inputs` with the new block.

    Raises:
        LatentError: If a prompt ends neither in a latent block nor in the generation prompt, or K is out of bounds.
    """
    if not isinstance(num_latents, Integral) or not 0 <= num_latents <= config.max_num_latents:
        raise LatentError(
            f"`num_latents` must lie between 0 and max_num_latents={config.max_num_latents}, a whole number for all rows, got "
            f"{num_latents}."
        )
    prompt = inputs["input_ids"]
    kept = prompt.shape[1] - _length_of_last_block(prompt, inputs.get("attention_mask"), config)
    start_id, latent_id, end_id = config.latent_block_ids
    new = prompt.new_tensor([start_id, *[latent_id] * num_latents, end_id] if num_latents else [])
    edited = dict(inputs, input_ids=_extend(prompt[:, :kept], new))
    for name, value in (("attention_mask", 1), ("clip_token_mask", 0), *((name, 0) for name in PER_TOKEN_INPUTS)):
        if inputs.get(name) is not None:
            edited[name] = _extend(inputs[name][:, :kept], torch.full_like(new, value))
    if (positions := inputs.get("position_ids")) is not None:  # they count on
        before = positions[..., :kept]
        following = before[..., -1:] + 1 + torch.arange(len(new), device=before.device)
        edited["position_ids"] = torch.cat([before, following], dim=-1)
    return edited


def _extend(rows: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows, tail.to(rows.dtype).expand(len(rows), -1)], dim=1)


def _length_of_last_block(prompt: torch.Tensor, attention_mask: torch.Tensor | None, config: StormConfig) -> int:
    """Number of columns of the latent block that ends all prompts; 0 if they have none."""
    if config.latent_token_id is None:
        raise LatentError(
            "This model has no latent tokens (`config.latent_token_id` is None), so `num_latents` cannot be set. Make a "
            "STORM of the checkpoint with `StormForConditionalGeneration.from_backbone`."
        )
    start_id, latent_id, end_id = config.latent_block_ids
    prompt = prompt.cpu()  # one wait for the device instead of three
    is_block = torch.isin(prompt, prompt.new_tensor(config.latent_block_ids))  # (B, S)
    length = int(is_block[0].sum())
    block = prompt.new_tensor([start_id, *[latent_id] * (length - 2), end_id][-length:] if length else [])
    ends_in_block = bool((prompt[:, prompt.shape[1] - length :] == block).all())
    has_no_other = bool((is_block.sum(dim=1) == length).all())
    is_left_padded = attention_mask is None or bool(attention_mask[:, -1].all())
    if not (ends_in_block and has_no_other and is_left_padded):
        raise LatentError(
            "`generate(num_latents=...)` changes the one whole latent block that ends a left-padded prompt, but here a "
            "prompt is padded on the right, or its block is broken or lies elsewhere. Set "
            "`processor.tokenizer.padding_side = 'left'` and render with `add_generation_prompt=True`."
        )
    return length


class StormGenerationMixin(GenerationMixin):
    """Stock generation for a model whose prompt thinks. Whatever generation asks of a model, the backbone answers."""

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *args: Any,
        num_latents: int | None = None,
        latent_intervention: LatentIntervention | None = None,
        output_latents: bool = False,
        latent_bottleneck: bool = False,
        halting: bool | None = None,
        **kwargs: Any,
    ) -> GenerateOutput | torch.LongTensor:
        """Think in latents, then answer.

        Takes everything that `GenerationMixin.generate` takes, and:

        Args:
            inputs (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                The prompts, left-padded; also taken as `input_ids`.
            args:
                Positional arguments of `GenerationMixin.generate` after `inputs`.
            num_latents (`int`, *optional*):
                Number K of latent steps for this call. By default the prompt's own block counts. The returned sequences
                start with the `input_ids` as they were handed in.
            latent_intervention (`Callable[[int, torch.Tensor], torch.Tensor]`, *optional*):
                Gets `(step, latent)`, the latent of shape `(batch_size, hidden_size)`, and returns what is fed instead.
            output_latents (`bool`, *optional*, defaults to `False`):
                Whether to return the model's own latents, of shape `(num_sequences, num_latents, hidden_size)`, as
                `latents` of the output, zero after the last one that a row used. Implies `return_dict_in_generate=True`.
            latent_bottleneck (`bool`, *optional*, defaults to `False`):
                Whether the answer is written from a prompt without its clip, to which the latents are given, so that all
                video information passes through K vectors.
            halting (`bool`, *optional*):
                Whether each row stops thinking when the halting head says so, within the number of latents that its prompt has room
                for: its answer is that of the same prompt with as many latents as it used, `num_latents_used` of the output. By
                default a model with a head does so where the prompt asks for the model's own number of latents, and the whole
                prompt is read here.
            kwargs:
                Keyword arguments of `GenerationMixin.generate`.

        Raises:
            LatentError: If the prompt's latent block is broken or cannot be changed to `num_latents`, or there is none
                for a `latent_intervention` or the `latent_bottleneck` to act on.
            ConfigurationError: If there is a cache and a `latent_bottleneck`, or if `output_latents` and
                `return_dict_in_generate=False` contradict each other, or `halting` is asked for and cannot be.
        """
        names = list(inspect.signature(GenerationMixin.generate).parameters)[2:]
        kwargs.update(zip(names, args, strict=False))
        prompt = inputs if inputs is not None else kwargs.pop("input_ids", None)
        if num_latents is not None:
            kwargs = self._with_num_latents(prompt, num_latents, kwargs)
        elif prompt is not None:
            kwargs["input_ids"] = prompt
        kwargs = self._with_encoder_output(kwargs)
        if kwargs.get("cache") is None:  # the whole prompt is here; `forward` may see it chunked
            self._check_block(kwargs, num_latents, latent_intervention, latent_bottleneck)
        halts = self._chooses_to_halt(halting, kwargs, latent_bottleneck)
        recorder = LatentRecorder(latent_intervention)
        kwargs["latent_intervention"] = recorder if output_latents or latent_intervention is not None else None
        if output_latents:
            _return_dict(kwargs)
        if latent_bottleneck:
            kwargs = self._think_first(kwargs, recorder)
        num_used = None
        if halts:
            kwargs, num_used = self._think_until_halted(kwargs)
        kwargs["logits_processor"] = self._without_latent_tokens(kwargs.get("logits_processor"))
        output = super().generate(None, **kwargs)
        if (num_latents is not None or latent_bottleneck or halts) and prompt is not None:
            output = _restore_prompt(output, prompt, kwargs["input_ids"].shape[1])
        if output_latents and not isinstance(output, torch.Tensor):
            output["latents"] = recorder.latents(len(output.sequences))
        if num_used is not None and not isinstance(output, torch.Tensor):
            _tell_lengths(output, num_used)
        return output

    def _chooses_to_halt(self, halting: bool | None, kwargs: dict[str, Any], latent_bottleneck: bool) -> bool:
        """Decide whether rows stop by themselves, and refuse what this cannot go with if it was asked for."""
        if not halting and (halting is False or not self.config.halting_head):
            return False
        block = None
        if kwargs.get("input_ids") is not None and kwargs.get("cache") is None:
            block = find_latent_block(kwargs["input_ids"], self.config)
        obstacles = {
            "no halting head": not self.config.halting_head,
            "no whole prompt with a latent block": block is None,
            "`latent_bottleneck`": latent_bottleneck,
            "`forced_latents`": kwargs.get("forced_latents") is not None,
            "`use_cache=False`": self._setting(kwargs, "use_cache") is False,
            "`prefill_chunk_size`": self._setting(kwargs, "prefill_chunk_size") is not None,
            "`cache_implementation`": self._setting(kwargs, "cache_implementation") not in (None, "dynamic"),
            "assisted decoding": any(self._setting(kwargs, name) is not None for name in _OF_DRAFTS),
            "a model in parts on several processes, which must take the same steps": self._is_sharded(kwargs),
        }
        found = [name for name, is_there in obstacles.items() if is_there]
        if halting and found:
            raise ConfigurationError(
                f"`halting=True` needs a model with a halting head, and a prompt that is read whole into a cache that grows; got "
                f"{found[0]}. Leave `halting` out, or train Stage II with `halting: true`."
            )
        is_bound = block is not None and block.num_latents == self.config.num_latents
        return bool(halting) or (halting is None and not found and is_bound)

    def _think_until_halted(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
        """Think, each row for as long as it needs; return what generates its answer from there, and the numbers of latents."""
        inputs = {**kwargs, "attention_mask": self._mask_of(kwargs)}
        thought = think_until_halted(self, inputs, inputs.pop("latent_intervention"))
        repeats = max(self._setting(kwargs, name) or 1 for name in ("num_beams", "num_return_sequences"))
        if repeats > 1:  # generation repeats the prompts, and leaves a cache to its owner
            rows = torch.arange(len(thought.num_latents), device=thought.num_latents.device)
            thought.inputs["cache"].reorder_cache(rows.repeat_interleave(repeats))
        num_added = thought.inputs["input_ids"].shape[1] - kwargs["input_ids"].shape[1]
        return self._with_lengths(thought.inputs, num_added), thought.num_latents

    def _check_block(
        self,
        kwargs: dict[str, Any],
        num_latents: int | None,
        latent_intervention: LatentIntervention | None,
        latent_bottleneck: bool,
    ) -> None:
        prompt = kwargs.get("input_ids")
        block = None if prompt is None else find_latent_block(prompt, self.config)
        if block is None:
            refuse_without_block(
                forced_latents=kwargs.get("forced_latents"),
                latent_intervention=latent_intervention,
                latent_bottleneck=latent_bottleneck or None,
            )
        if num_latents is None and prompt is not None:
            _warn_of_another_length(0 if block is None else block.num_latents, self.config)

    def _with_encoder_output(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take flat video features, if there are any, as the output of the backbone's encoder."""
        features, deepstack = kwargs.pop("video_features", None), kwargs.pop("video_deepstack", None)
        if features is None:
            return kwargs
        dtype = self.get_input_embeddings().weight.dtype
        encoded = unflatten_features(features, kwargs.get("video_grid_thw"), deepstack, dtype=dtype)
        return {**kwargs, "mm_encoder_outputs": encoded}

    def _with_num_latents(
        self, prompt: torch.Tensor | None, num_latents: int, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        if prompt is None or kwargs.get("cache") is not None:
            raise LatentError(
                "`num_latents` edits a prompt of `input_ids` before anything is cached; got "
                f"{'no input_ids' if prompt is None else 'cache'}. Render the prompt with "
                "`apply_chat_template(..., num_latents=k)` instead."
            )
        edited = set_num_latents({**kwargs, "input_ids": prompt}, num_latents, self.config)
        return self._with_lengths(edited, edited["input_ids"].shape[1] - prompt.shape[1])

    @torch.no_grad()
    def _think_first(self, kwargs: dict[str, Any], recorder: LatentRecorder) -> dict[str, Any]:
        """Think with the clip in sight; return what generates from the same prompt without it and with the same latents."""
        if kwargs.get("cache") is not None:
            raise ConfigurationError(
                "`latent_bottleneck` writes the answer to a prompt without its clip, but a cache that has seen it was given. "
                "Leave `cache` out."
            )
        refuse_single_patch(kwargs, kwargs.get("clip_token_mask"))
        kwargs = {**kwargs, "attention_mask": self._mask_of(kwargs)}
        seen = ("input_ids", "attention_mask", *PER_TOKEN_INPUTS)
        inputs = {name: value for name, value in kwargs.items() if name in seen or name.startswith(CLIP_INPUTS)}
        self(**inputs, latent_intervention=recorder, use_cache=False, logits_to_keep=1)
        rows = ClipFreeRows(
            kwargs["input_ids"], kwargs["attention_mask"], self.config, kwargs.pop("clip_token_mask", None)
        )
        given = {"forced_latents": recorder.fed_latents, "latent_intervention": None, "prefill_chunk_size": None}
        edited = rows.replace({**kwargs, **given})
        edited.pop("position_ids", None)  # of the prompt with its clip
        return self._with_lengths(edited, rows.input_ids.shape[1] - kwargs["input_ids"].shape[1])

    def _setting(self, kwargs: dict[str, Any], name: str) -> Any:
        """Setting of generation, by its argument or by its configuration."""
        settings = kwargs.get("generation_config") or self.generation_config
        return kwargs[name] if kwargs.get(name) is not None else getattr(settings, name, None)

    def _is_sharded(self, kwargs: dict[str, Any]) -> bool:
        if kwargs.get("synced_gpus") is not None:
            return bool(kwargs["synced_gpus"])
        has_others = torch.distributed.is_available() and torch.distributed.is_initialized()
        return has_others and (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self))

    def _with_lengths(self, kwargs: dict[str, Any], num_added: int) -> dict[str, Any]:
        """Lengths that count the caller's prompt, for one that is longer by so many tokens."""
        settings = kwargs.get("generation_config") or self.generation_config
        lengths = {}
        for name in ("max_length", "min_length"):
            in_settings = None if settings.max_new_tokens is not None else getattr(settings, name)
            if (length := kwargs.get(name, None if "max_new_tokens" in kwargs else in_settings)) is not None:
                lengths[name] = length + num_added
        return {**kwargs, **lengths}

    def _mask_of(self, kwargs: dict[str, Any]) -> torch.Tensor:
        """The mask that was given, or what stock generation infers: all but the padding."""
        if (mask := kwargs.get("attention_mask")) is not None:
            return mask
        settings = kwargs.get("generation_config") or self.generation_config
        padding = kwargs.get("pad_token_id", settings.pad_token_id)
        prompt = kwargs["input_ids"]
        return torch.ones_like(prompt) if padding is None else (prompt != padding).long()

    def _without_latent_tokens(self, processors: list | None) -> LogitsProcessorList | None:
        """Add a processor that makes latent tokens impossible to sample."""
        token_ids = [token_id for token_id in self.config.latent_block_ids if token_id is not None]
        if not token_ids:
            return processors
        suppress = SuppressLatentTokens(token_ids, device=self.device)
        return LogitsProcessorList([*(processors or []), suppress])

    def generate_batch(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse continuous batching.

        Raises:
            ConfigurationError: Always. Its paged cache takes packed tokens, and a rollout feeds embeddings.
        """
        raise ConfigurationError(
            "Continuous batching packs token ids of many prompts into one paged cache, but a latent is an embedding that "
            "depends on the step before. Use `generate` with a left-padded batch."
        )

    # What generation asks of a model, the backbone answers.

    @property
    def _is_stateful(self) -> bool:
        return self.backbone._is_stateful

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Prepare one step as the backbone does; the rollout's own arguments are those of the prompt, as its clip is.

        A compiled step would be compiled anew for each function that replaces or records latents.

        `inputs_embeds` is named, since generation looks for the name where a prompt is given as embeddings. Positions count
        tokens, not columns, in the rollout and so in every step after it, also where a backbone would leave them out and count
        columns, padding included.
        """
        embedded = {} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        prepared = self.backbone.prepare_inputs_for_generation(input_ids, **embedded, **kwargs)
        positions, read = kwargs.get("position_ids"), prepared.get("input_ids")
        if prepared.get("position_ids") is None and positions is not None and read is not None:
            prepared["position_ids"] = positions[..., -read.shape[1] :]
        if not kwargs.get("is_first_iteration") and kwargs.get("use_cache", True):
            prepared = {name: value for name, value in prepared.items() if name not in _OF_ROLLOUT}
        return prepared

    def _prefill(
        self,
        input_ids: torch.Tensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> ModelOutput:
        """Read the prompt as stock generation does, which compiles decoding steps: latent steps then are compiled too."""
        is_whole = generation_config.prefill_chunk_size is None
        if not (is_whole and self._valid_auto_compile_criteria(model_kwargs, generation_config)):
            return super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)
        state = rollout_state(model_kwargs["cache"])
        settings = generation_config.compile_config or self._default_compile_config()
        state.compiled_step = torch.compile(self.backbone.base_model.__call__, **settings.to_dict())
        try:
            return super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)
        finally:
            state.compiled_step = None  # the cache may be the caller's

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict) -> torch.Tensor:
        return prepare_positions(self.backbone, inputs_tensor, model_kwargs)

    def _get_logits_processor(
        self,
        generation_config: GenerationConfig,
        *args: Any,
        model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LogitsProcessorList:
        """Refuse guidance where stock generation reads the second prompt at the positions of the first, and fails on their shape."""
        positions = (model_kwargs or {}).get("position_ids")
        if generation_config.guidance_scale not in (None, 1) and positions is not None and positions.ndim > 2:
            raise ConfigurationError(
                f"`guidance_scale` needs a backbone that counts positions along one axis, got {generation_config.guidance_scale} with a "
                f"{type(self.backbone).__name__}, which counts time, height and width. Leave it out."
            )
        return super()._get_logits_processor(generation_config, *args, model_kwargs=model_kwargs, **kwargs)

    def _maybe_prepare_encoder_kwargs_for_generation(self, *args: object, **kwargs: object) -> dict[str, Any]:
        return self.backbone._maybe_prepare_encoder_kwargs_for_generation(*args, **kwargs)

    def _expand_inputs_for_generation(self, *args: object, **kwargs: object) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.backbone._expand_inputs_for_generation(*args, **kwargs)

    def _update_model_kwargs_for_generation(self, *args: object, **kwargs: object) -> dict[str, Any]:
        return self.backbone._update_model_kwargs_for_generation(*args, **kwargs)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        others = {name: value for name, value in model_kwargs.items() if name not in _OF_ROLLOUT}
        self.backbone._validate_model_kwargs(others)


def _warn_of_another_length(num_latents: int, config: StormConfig) -> None:
    """Say once that a prompt's own block is not as long as in training."""
    if config.latent_token_id is not None and num_latents != config.num_latents:
        logger.warning_once(
            f"The prompt asks for {num_latents} latents, but the model has num_latents={config.num_latents}. Write prompts with "
            f"the processor that was saved with the model, or pass `num_latents={num_latents}` if it is meant."
        )


def _return_dict(kwargs: dict[str, Any]) -> None:
    """Ask for an output that has room for latents."""
    if kwargs.get("forced_latents") is not None:
        raise ConfigurationError(
            "`output_latents=True` returns the latents of a rollout, which there is not with `forced_latents`. Leave one of the "
            "two out."
        )
    if not kwargs.setdefault("return_dict_in_generate", True):
        raise ConfigurationError(
            "`output_latents=True` returns latents beside the sequences, so `return_dict_in_generate=False` cannot hold. Leave one of "
            "the two out."
        )


def _tell_lengths(output: GenerateOutput, num_used: torch.Tensor) -> None:
    """Add how many latents each returned sequence used, and zero the recorded ones after them."""
    used = num_used.repeat_interleave(len(output.sequences) // len(num_used))
    output["num_latents_used"] = used
    if (latents := output.get("latents")) is not None:
        is_used = torch.arange(latents.shape[1], device=latents.device) < used[:, None]
        output["latents"] = latents.masked_fill(~is_used[..., None], 0)


def _restore_prompt(
    output: GenerateOutput | torch.Tensor, prompt: torch.Tensor, edited_length: int
) -> GenerateOutput | torch.Tensor:
    """Put the caller's prompt back in front of the answer."""
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    rows = prompt.repeat_interleave(len(sequences) // len(prompt), dim=0)
    restored = torch.cat([rows, sequences[:, edited_length:]], dim=1)
    if isinstance(output, torch.Tensor):
        return restored
    output.sequences = restored
    return output
