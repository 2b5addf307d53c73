"""Chat completions of a model that thinks in latents: request to prompt to answers.

Prompts are encoded where training and evaluation encode theirs, so text of a user never makes a control token, and a video
comes with its timestamps.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, ProcessorMixin

from storm_hf.errors import DatasetError, PromptError, RequestError
from storm_hf.evaluation.clip_prefix import ClipPrefixes
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.processing_storm import thinking_switches
from storm_hf.serving.generation import AnswerText, RepetitionPenalties, generation_config
from storm_hf.serving.media import MediaPolicy
from storm_hf.serving.request import ChatCompletionRequest, ImagePart, Message, TextPart, VideoPart


MAX_NEW_TOKENS = 1024
MAX_PREFIX_BYTES = 2**30
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LatentParams:
    """Latents of an answer.

    Args:
        num_latents (`int`):
            Number K of latent steps; 0 answers at once.
        latents ([`~storm_hf.interventions.kind.InterventionKind`], *optional*, defaults to `"own"`):
            Intervention on the latents; `"donor"` feeds those of another conversation.
    """

    num_latents: int
    latents: InterventionKind = InterventionKind.own

    @classmethod
    def of(cls, request: ChatCompletionRequest, default: int, most: int) -> "LatentParams":
        """Read `num_latents` and `latents` of a request.

        Args:
            request ([`ChatCompletionRequest`]):
                The request.
            default (`int`):
                Number of latents of the model.
            most (`int`):
                Largest number that the model can think for.

        Raises:
            RequestError: If the model cannot think so, or if the two do not fit together.
        """
        num_latents = default if request.num_latents is None else request.num_latents
        if not 0 <= num_latents <= most:
            raise RequestError(
                f"Expected `num_latents` between 0 and {most} but got {num_latents}.", 422, param="num_latents"
            )
        is_without = request.latents == InterventionKind.no_latents
        if num_latents == 0 and not is_without and request.latents != InterventionKind.own:
            raise RequestError(
                f"`latents` cannot be {request.latents.value!r} with `num_latents` 0: there are none.",
                422,
                param="latents",
            )
        return cls(0 if is_without else num_latents, request.latents)


@dataclass(frozen=True)
class Prompt:
    """Request whose files are decoded and whose text is encoded.

    Args:
        request ([`ChatCompletionRequest`]):
            The request.
        latents ([`LatentParams`]):
            Latents of the answer.
        inputs (`dict[str, torch.Tensor]`):
            Inputs of the model.
        settings ([`~transformers.GenerationConfig`]):
            Settings of generation.
        donor (`dict[str, torch.Tensor]`, *optional*):
            Inputs of the conversation whose latents are fed.
    """

    request: ChatCompletionRequest
    latents: LatentParams
    inputs: Inputs
    settings: GenerationConfig
    donor: Inputs | None = None

    @property
    def num_tokens(self) -> int:
        """Length of the prompt."""
        return self.inputs["input_ids"].shape[1]


@dataclass(frozen=True)
class Choice:
    """One answer.

    Args:
        text (`str`):
            Its text.
        num_tokens (`int`):
            Number of tokens that were generated.
        finish_reason (`str`):
            `"stop"` or `"length"`, as OpenAI counts.
        num_latents (`int`, *optional*):
            Number of latents after which a model that halts stopped thinking.
    """

    text: str
    num_tokens: int
    finish_reason: str
    num_latents: int | None = None


class ChatModel:
    """The one model of a server.

    Args:
        name (`str`):
            Name that clients use.
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        media ([`MediaPolicy`], *optional*):
            Allowed images and videos.
        max_new_tokens (`int`, *optional*, defaults to `1024`):
            Longest answer that a request may ask for.
        max_prefix_bytes (`int`, *optional*, defaults to `1073741824`):
            Memory for clips that were asked about last, from which further requests about them go on; `0` reads each anew.
    """

    def __init__(
        self,
        name: str,
        model: StormForConditionalGeneration,
        processor: ProcessorMixin,
        media: MediaPolicy | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_prefix_bytes: int = MAX_PREFIX_BYTES,
    ) -> None:
        self.name, self.model, self.processor = name, model, processor
        self.media, self.max_new_tokens = media or MediaPolicy(), max_new_tokens
        self.prefixes = ClipPrefixes(model, None, max_prefix_bytes)
        self._tokenizing = Lock()  # padding is a setting of the tokenizer, which threads share
        self._decoding = copy.deepcopy(processor.tokenizer)

    def check_name(self, name: str) -> None:
        """Check that a client means the model that is served.

        Raises:
            RequestError: If it names another.
        """
        if name != self.name:
            raise RequestError(
                f"Expected `model` {self.name!r}, which is served here, but got {name[:80]!r}.", 404, param="model"
            )

    def prepare(self, request: ChatCompletionRequest) -> Prompt:
        """Check a request against the model, decode its files and encode its text.

        Raises:
            RequestError: If the model cannot do what is asked, or cannot read what is sent.
        """
        config = self.model.config
        if request.model is not None:
            self.check_name(request.model)
        latents = LatentParams.of(request, config.num_latents, config.max_num_latents)
        max_new_tokens = self._max_new_tokens(request)
        settings = generation_config(request, self.model.generation_config, self._vocab_size, max_new_tokens)
        inputs = self.encode(request.messages, latents.num_latents, request.chat_template_kwargs)
        if window := getattr(config.get_text_config(), "max_position_embeddings", None):
            settings.max_new_tokens = min(max_new_tokens, window - inputs["input_ids"].shape[1])
        donor = request.donor_messages and self.encode(request.donor_messages, latents.num_latents)
        return Prompt(request, latents, inputs, settings, donor or None)

    def encode(
        self, messages: list[Message], num_latents: int, chat_template_kwargs: dict[str, bool] | None = None
    ) -> Inputs:
        """Encode a conversation to inputs of the model.

        Raises:
            RequestError: If a file cannot be read, or if the processor or the model cannot take the conversation.
        """
        self._check_template_arguments(chat_template_kwargs or {})
        row = {
            "prompt": _decode_messages(messages, self.processor, self.media),
            "chat_template_kwargs": chat_template_kwargs,
        }
        try:
            with self._tokenizing:
                inputs = PromptEncoder(self.processor, self.model.config, num_latents)([row])
        except (DatasetError, PromptError) as error:
            raise RequestError(f"The model cannot take these messages: {error}") from error
        except ValueError as error:  # as of a video processor about a picture 200 times as wide as high
            raise RequestError(f"The model cannot take these messages: {error}") from error
        self._check_window(inputs["input_ids"].shape[1])
        return inputs

    @torch.no_grad()
    def answer(self, prompt: Prompt, on_text: Callable[[int, str], None], cancelled: Event) -> list[Choice]:
        """Generate the choices of a completion. Call it from one thread only.

        Args:
            prompt ([`Prompt`]):
                The prompt.
            on_text (`Callable[[int, str], None]`):
                Called with the number of the choice and each piece of its text.
            cancelled (`threading.Event`):
                Ends generation once it is set.
        """
        if cancelled.is_set():
            return []
        intervention = self._intervention(prompt)
        choices = []
        for index in range(prompt.request.n):
            inputs = self._inputs(prompt) | intervention
            choices.append(self._choice(index, prompt, inputs, on_text, cancelled))
            if cancelled.is_set():
                break
        return choices

    def _inputs(self, prompt: Prompt) -> dict[str, Any]:
        """Inputs of one choice; each goes on from a copy of what is kept of the clip."""
        if prompt.latents.latents == InterventionKind.latents_only:  # reads the prompt twice
            return {name: value.to(self.model.device) for name, value in prompt.inputs.items()}
        return self.prefixes.resume([prompt.inputs])

    def _choice(
        self, index: int, prompt: Prompt, inputs: dict[str, Any], on_text: Callable[[int, str], None], cancelled: Event
    ) -> Choice:
        request = prompt.request
        end_ids = _end_ids(prompt.settings)
        text = AnswerText(self._decoding, request.stop, end_ids, lambda piece: on_text(index, piece), cancelled)
        penalties = RepetitionPenalties(text, request.frequency_penalty, request.presence_penalty)
        if prompt.settings.do_sample:
            _seed(request.seed, index)
        output: Any = self.model.generate(
            **inputs,
            return_dict_in_generate=True,
            generation_config=copy.deepcopy(prompt.settings),
            tokenizer=self._decoding,  # for stop strings of the checkpoint's own settings
            stopping_criteria=[text],
            logits_processor=[penalties] if request.frequency_penalty or request.presence_penalty else [],
        )
        text.finish()
        used = output.get("num_latents_used")
        num_latents = None if used is None else int(used[0])
        return Choice(text.text, len(text.token_ids), "stop" if text.is_ended else "length", num_latents)

    def _intervention(self, prompt: Prompt) -> dict[str, Any]:
        """Make the argument of `generate` that replaces the model's own latents."""
        kind = prompt.latents.latents
        if kind in (InterventionKind.own, InterventionKind.no_latents):  # whose prompt has no latents
            return {}
        if kind == InterventionKind.latents_only:
            return Intervention(kind).generation_arguments()
        output: Any = self.model.generate(
            **self.prefixes.resume([prompt.donor or prompt.inputs]),
            max_new_tokens=1,
            do_sample=False,
            return_dict_in_generate=True,
            output_latents=True,
            halting=False,  # so that there is a latent for every step
        )
        latents = output.latents[:1].float().cpu().numpy()  # (1, K, D)
        intervention = make_intervention(kind, latents, donors=np.zeros(1, dtype=int))
        return {"halting": False, **intervention.generation_arguments()}

    @property
    def _vocab_size(self) -> int:
        return self.model.config.get_text_config().vocab_size

    def _max_new_tokens(self, request: ChatCompletionRequest) -> int:
        asked = request.token_limit
        if asked is not None and asked > self.max_new_tokens:
            param = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
            raise RequestError(
                f"Expected `{param}` of 1 to {self.max_new_tokens} tokens but got {asked}.", 422, param=param
            )
        return asked or min(MAX_NEW_TOKENS, self.max_new_tokens)

    def _check_template_arguments(self, arguments: dict[str, bool]) -> None:
        switches = thinking_switches(str(self.processor.chat_template))
        if unknown := [name for name in arguments if name not in switches]:
            known = f"knows {', '.join(switches)}" if switches else "has no switch"
            raise RequestError(
                f"This server does not do `chat_template_kwargs.{unknown[0][:80]}`: the template {known}. Leave it out.",
                422,
                param="chat_template_kwargs",
            )

    def _check_window(self, num_tokens: int) -> None:
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if window and num_tokens >= window:
            raise RequestError(
                f"The messages make {num_tokens} tokens, but this model reads {window} with the answer. Send less.",
                413,
                param="messages",
            )


def _seed(seed: int | None, index: int) -> None:
    """Seed the sampling of a choice; without a seed, at random."""
    if seed is None:
        torch.seed()
    else:
        torch.manual_seed(seed + index)


def _end_ids(settings: GenerationConfig) -> list[int]:
    end = settings.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)


def _decode_messages(
    messages: Sequence[Message], processor: ProcessorMixin, media: MediaPolicy
) -> list[dict[str, Any]]:
    """Decode the images and videos of a conversation.

    Args:
        messages (`Sequence[Message]`):
            The conversation.
        processor ([`~transformers.ProcessorMixin`]):
            Determines how videos are sampled.
        media ([`MediaPolicy`]):
            Allowed sources and sizes.

    Raises:
        RequestError: If a file is not allowed or cannot be decoded.
    """
    return [
        {"role": message.role, "content": [_decode(part, processor, media) for part in message.content]}
        for message in messages
    ]


def _decode(part: TextPart | ImagePart | VideoPart, processor: ProcessorMixin, media: MediaPolicy) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image", "image": media.image(part.image_url.url)}
    return {"type": "video", "video": media.video(part.video_url.url, processor)}
