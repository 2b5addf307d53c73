"""Requests of lmms-eval: conversations with decoded videos in, answers and their costs out.

Axes: B batch, K latent steps, D hidden size.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from storm_hf.errors import PromptError
from storm_hf.evaluation.batch import counted_passes, passes_until_first_token, up_to_end
from storm_hf.evaluation.clip_prefix import ClipPrefixes
from storm_hf.evaluation.harness.answer_log import LoggedAnswer
from storm_hf.evaluation.harness.checkpoint import STORM
from storm_hf.evaluation.harness.settings import ChatSettings, PromptStyle
from storm_hf.inputs.media import load_clip
from storm_hf.inputs.prompts import PromptEncoder, as_prompt_error
from storm_hf.inputs.seen_clips import prepared_once
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.video import VideoClip


# The tags are those that lmms-eval cuts out before it reads an answer.
REASONING_REQUEST = (
    "\nThink step by step before you answer: write your reasoning between <think> and </think>, and after it nothing but the "
    "answer, in the form asked for above."
)


@dataclass(frozen=True)
class HarnessQuestion:
    """One request of lmms-eval.

    Args:
        task (`str`):
            Name of the task.
        doc_id (`int`):
            Position of the question in its data set.
        context (`str`):
            The text of the question.
        generation (`Mapping[str, Any]`):
            Generation settings of the task: `max_new_tokens`, `until`, `do_sample` and the like.
        conversation (`list[dict]`):
            Messages as chat templates take them; videos are paths.
    """

    task: str
    doc_id: int
    context: str
    generation: Mapping[str, Any]
    conversation: list[dict[str, Any]]


def read_question(
    arguments: tuple[Any, ...], conversation: list[dict[str, Any]], style: PromptStyle
) -> HarnessQuestion:
    """Take a request of lmms-eval apart.

    Args:
        arguments (`tuple`):
            `Instance.args` of a chat task: context, the function from a document to its messages, generation arguments, number
            of the document, task, split.
        conversation (`list[dict]`):
            Result of that function, in the form of chat templates. It is changed where reasoning is asked for.
        style (`str`):
            `direct`, or `cot` to ask for reasoning.

    Raises:
        PromptError: If the question has sound, or a part of a video, which this model is not given.
    """
    context, _, generation, doc_id, task, _ = arguments
    for message in conversation:
        for part in message["content"]:
            _check_part(part, task)
    if style == "cot":
        _request_reasoning(conversation)
    return HarnessQuestion(task, doc_id, context, generation or {}, conversation)


def clip_by_clip(clips: Sequence[Hashable]) -> list[int]:
    """Order questions so that those about one clip follow each other.

    Args:
        clips (`Sequence`):
            The clip of each question.

    Returns:
        `list[int]`: Positions of the questions, clips and the questions about each in the order in which they come.
    """
    first = {clip: place for place, clip in reversed(list(enumerate(clips)))}
    return sorted(range(len(clips)), key=lambda place: (first[clips[place]], place))


def video_paths(conversation: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The files of the videos of a conversation whose videos are not read yet."""
    parts = (part for message in conversation for part in message["content"])
    return tuple(str(part["video"]) for part in parts if part["type"] == "video")


def _decode_videos(conversation: list[dict[str, Any]], load: Callable[[str], VideoClip]) -> list[dict[str, Any]]:
    """Put clips, as `load` reads them, in the place of paths."""

    def decode(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "video": load(part["video"])} if part["type"] == "video" else part

    return [{**message, "content": [decode(part) for part in message["content"]]} for message in conversation]


def _reading_once(read: Callable[[Any], VideoClip]) -> Callable[[Any], VideoClip]:
    """Remember the last file; frames in memory are at hand."""
    remembered = lru_cache(maxsize=1)(read)
    return lambda video: (remembered if isinstance(video, Hashable) else read)(video)


def _check_part(part: Mapping[str, Any], task: str) -> None:
    if part["type"] == "audio":
        raise PromptError(f"The task {task} asks about sound, which this model does not hear. Choose another task.")
    if "video_start" in part or "video_end" in part:
        raise PromptError(
            f"The task {task} asks about a part of {part['video']}, but whole videos are read. Cut the video, or choose "
            "another task."
        )


def _request_reasoning(conversation: list[dict[str, Any]]) -> None:
    """End the last turn of the user with the request to think aloud."""
    turn = [message for message in conversation if message["role"] == "user"][-1]
    if turn["content"] and turn["content"][-1]["type"] == "text":
        turn["content"][-1]["text"] += REASONING_REQUEST
    else:
        turn["content"].append({"type": "text", "text": REASONING_REQUEST.strip()})


_DIRECT_TOKENS = 128  # where a task names no length
_REASONING_TOKENS = 1024
_END_OF_REASONING = "</think>"


class ChatGenerator:
    """Lets a model answer questions of lmms-eval.

    A STORM that is asked one question at a time reads a clip once for the questions about it that follow each other.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A STORM or a plain checkpoint.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        settings ([`ChatSettings`]):
            Settings of its answers.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, settings: ChatSettings) -> None:
        self.model = model
        self.processor = prepared_once(processor)
        self.settings = settings
        self.num_latents = _num_latents_of(model, settings)
        self._encode = PromptEncoder(self.processor, model.config, self.num_latents)
        self._prefixes = ClipPrefixes(model) if model.config.model_type == STORM else None
        read = partial(load_clip, processor=self.processor, max_frames=settings.max_frames, strict=False)
        self._load = _reading_once(read)

    def encode(self, questions: Sequence[HarnessQuestion]) -> dict[str, torch.Tensor]:
        """Read the videos of a batch and turn its conversations into left-padded model inputs.

        Raises:
            VideoReadError: If a video cannot be read at all.
            PromptError: If the processor cannot take a picture or a video.
        """
        rows = [{"prompt": _decode_videos(question.conversation, self._load)} for question in questions]
        asked = ", ".join(f"{question.task} {question.doc_id}" for question in questions)
        with as_prompt_error(f"The model cannot take one of these questions ({asked})"):
            return self._encode(rows)

    def answer(self, questions: Sequence[HarnessQuestion], inputs: Mapping[str, torch.Tensor]) -> list[LoggedAnswer]:
        """Answer a batch whose questions want to be generated alike.

        Args:
            questions (`Sequence[HarnessQuestion]`):
                The questions.
            inputs (`Mapping[str, torch.Tensor]`):
                Result of `encode`.
        """
        generation = self.generation_arguments(questions[0].generation)
        thinking = self._thinking_arguments(questions, inputs)
        started = time.perf_counter()
        output, num_passes = self._generate(inputs, **generation, **thinking)
        seconds = (time.perf_counter() - started) / len(questions)
        new_tokens = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        tokens = [up_to_end(row, self._end_ids) for row in new_tokens]
        norms = _latent_norms(getattr(output, "latents", None), len(questions))
        used = getattr(output, "num_latents_used", None)  # of a model that halts
        lengths = [self.num_latents] * len(questions) if used is None else used.tolist()
        until = [] if self.settings.prompt == "cot" else questions[0].generation.get("until") or []
        prefill = passes_until_first_token(num_passes, len(new_tokens[0]))
        return [
            self._logged(row, until, int(mask.sum()), prefill, seconds, norm[:length], length)
            for row, mask, norm, length in zip(tokens, inputs["attention_mask"], norms, lengths, strict=True)
        ]

    def generation_arguments(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Generation settings of a task: greedy, unless it asks for sampling.

        Args:
            wanted (`Mapping[str, Any]`):
                The generation arguments of the task.
        """
        length = self.settings.max_new_tokens or (
            _REASONING_TOKENS if self.settings.prompt == "cot" else wanted.get("max_new_tokens") or _DIRECT_TOKENS
        )
        samples = bool(wanted.get("do_sample"))
        return {
            "max_new_tokens": int(length),
            "do_sample": samples,
            "temperature": wanted.get("temperature") if samples else None,
            "top_p": wanted.get("top_p") if samples else None,
            "top_k": wanted.get("top_k") if samples else None,
            "num_beams": int(wanted.get("num_beams") or 1),
            "pad_token_id": self.processor.tokenizer.pad_token_id,
            "return_dict_in_generate": True,
        }

    @property
    def _end_ids(self) -> frozenset[int]:
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return frozenset(end for end in ends if end is not None) or frozenset({self.processor.tokenizer.eos_token_id})

    @torch.no_grad()
    def _generate(self, inputs: Mapping[str, torch.Tensor], **arguments: object) -> tuple[Any, int]:
        """Generate, and count the calls of the language model; a reading of a clip for its questions counts for none."""
        given = self._inputs(inputs, arguments)
        if "cache" in given:
            arguments.pop("num_latents", None)  # its own block has as many, and no other number can be asked for
        with counted_passes(self.model) as calls:
            output = self.model.generate(**given, **arguments, eos_token_id=sorted(self._end_ids))
        return output, len(calls)

    def _inputs(self, inputs: Mapping[str, torch.Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs on the model's device: of one question to a STORM, which writes one sequence with its clip in sight, going on from it."""
        is_one = len(inputs["input_ids"]) == 1 and arguments.get("num_beams", 1) == 1
        if self._prefixes is None or not is_one or arguments.get("latent_bottleneck"):
            return {name: value.to(self.model.device) for name, value in inputs.items()}
        return self._prefixes.resume([inputs])

    def _thinking_arguments(
        self, questions: Sequence[HarnessQuestion], inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, Any]:
        """Record the latents of a STORM, and feed something else where that is asked."""
        config = self.model.config
        if config.model_type != STORM:
            return {}
        kind = self.settings.latents
        if not self.num_latents or kind == InterventionKind.own:
            meant = {} if self.num_latents == config.num_latents else {"num_latents": self.num_latents}
            return {"output_latents": True, **meant}
        if kind == InterventionKind.latents_only:
            return {"output_latents": True, **Intervention(kind).generation_arguments()}
        rollout = {**self.generation_arguments({}), "max_new_tokens": 1}
        rollout["halting"] = False  # so that there is a latent for every step
        own = self._generate(inputs, **rollout, output_latents=True)[0].latents.float().cpu().numpy()  # (B, K, D)
        intervention = make_intervention(kind, own, seed=[_seed(question) for question in questions])
        return {"output_latents": True, "halting": False, **intervention.generation_arguments(range(len(questions)))}

    def _logged(
        self,
        tokens: list[int],
        until: Sequence[str],
        num_input: int,
        prefill: int,
        seconds: float,
        norms: list[float],
        num_latents: int,
    ) -> LoggedAnswer:
        tokenizer = self.processor.tokenizer
        text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        reasoning, closed, _ = text.rpartition(_END_OF_REASONING)
        return LoggedAnswer(
            text=_before(text, until),
            input_tokens=num_input,
            output_tokens=len(tokens),
            reasoning_tokens=len(tokenizer(reasoning + closed).input_ids) if closed else 0,
            num_latents=num_latents,
            latents=self.settings.latents,
            latent_norms=norms,
            forward_passes=prefill + max(len(tokens) - 1, 0),
            seconds=seconds,
            truncated=not (tokens and tokens[-1] in self._end_ids),
        )


def _num_latents_of(model: PreTrainedModel, settings: ChatSettings) -> int:
    """Number of latent steps with which a model answers; 0 for one that has none."""
    if model.config.model_type != STORM:
        return 0
    return model.config.num_latents if settings.wanted_latents is None else settings.wanted_latents


def _seed(question: HarnessQuestion) -> int:
    """Seed of the noise of a question, whatever batch it is in."""
    return int(sha256(f"{question.task} {question.doc_id}".encode()).hexdigest()[:12], 16)


def _latent_norms(latents: torch.Tensor | None, num_rows: int) -> list[list[float]]:
    if latents is None:
        return [[] for _ in range(num_rows)]
    return latents.float().norm(dim=-1).tolist()  # (B, K)


def _before(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the strings at which a task ends an answer."""
    return text[: min([place for stop in stops if (place := text.find(stop)) >= 0], default=len(text))]
