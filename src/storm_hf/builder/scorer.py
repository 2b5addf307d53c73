"""Frozen video-language model that scores the answer of a question, for the gates that need a model.

It is shown the clip as the question sees it, the thought video, or both, and is never trained.

Axes: B batch (one question), S sequence, R tokens of a reply, V vocabulary, T frames, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch

from storm_hf.annotations import Annotation
from storm_hf.builder.encoder import load_model
from storm_hf.builder.recipe import ModelSettings
from storm_hf.errors import ConfigurationError
from storm_hf.model import storm_processor
from storm_hf.thought_video import ThoughtVideo
from storm_hf.thought_video.clip_part import frame_times, read_seen, seen_frames
from storm_hf.training.collator import AnswerCollator, append_answers
from storm_hf.training.prompts import PromptEncoder, as_prompt_error
from storm_hf.video import VideoClip
from storm_hf.video.sample import evenly_spaced
from storm_hf.worlds.question import LETTERS, QuestionStyle, format_answer, format_question


@dataclass(frozen=True, kw_only=True)
class ScorerSettings(ModelSettings):
    """Settings of the frozen model that scores answers.

    Args:
        num_frames (`int`, *optional*, defaults to `8`):
            Frames shown of the clip, evenly over what the question sees, and as many of the thought video.
        question_style (`str`, *optional*, defaults to `"letters"`):
            Style of the options; see `format_question`. A model that knows words alone needs `words`.
    """

    num_frames: int = 8
    question_style: QuestionStyle = "letters"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.question_style not in get_args(QuestionStyle):
            styles = ", ".join(get_args(QuestionStyle))
            raise ConfigurationError(f"Expected question_style among {styles} but got {self.question_style!r}.")
        if self.num_frames < 1:
            raise ConfigurationError(f"Expected num_frames of 1 or more but got {self.num_frames}.")


class FrozenScorer:
    """Scores the correct answer with a frozen model; an [`~storm_hf.thought_video.AnswerScorer`].

    A question with 2 to 10 options is closed: its score is the logarithm of the probability of the correct option among all of
    them, ln(1/n) by chance, 0 at best. Options are told apart by the first token of their reply where these differ, as letters
    do, else by the whole reply. Any other question is open: its score is the log-likelihood of its answer, the end of the turn
    included. Both are in nats.

    Args:
        settings ([`ScorerSettings`]):
            Model and precision. It is loaded at the first question.
    """

    def __init__(self, settings: ScorerSettings) -> None:
        self.settings = settings

    def score(self, annotation: Annotation, thought: ThoughtVideo | None) -> float:
        """Score the answer given clip and question, and the thought video after the clip if there is one.

        Raises:
            PromptError: If the model cannot look at these videos.
            VideoReadError: If a video cannot be read.
        """
        clips = [self._seen(annotation)] + ([] if thought is None else [self._sampled(thought)])
        return self._score(annotation, clips, annotation.question)

    def score_alone(self, annotation: Annotation, thought: ThoughtVideo) -> float:
        """Score the answer given the thought video and the options, without clip and question.

        Raises:
            PromptError: If the model cannot look at this video.
            VideoReadError: If it cannot be read.
        """
        return self._score(annotation, [self._sampled(thought)], "")

    @cached_property
    def _model(self) -> Any:
        return load_model(self.settings)

    @cached_property
    def _prompts(self) -> PromptEncoder:
        # Its template knows how to write no latents; a plain one would warn of being asked for none.
        processor = storm_processor(self.settings.model, revision=self.settings.revision)
        return PromptEncoder(processor, self._model.config, num_latents=0)

    @torch.no_grad()
    def _score(self, annotation: Annotation, clips: Sequence[VideoClip], question: str) -> float:
        closed = annotation.answer in annotation.options and 2 <= len(annotation.options) <= len(LETTERS)
        if not closed:
            inputs = self._encoded(clips, question)
            return float(self._log_likelihood(inputs, self._reply(annotation.answer)))
        style, options = self.settings.question_style, annotation.options
        inputs = self._encoded(clips, format_question(question, options, style).strip())
        replies = [self._reply(format_answer(option, options, style)) for option in options]
        return float(self._log_probabilities(inputs, replies)[options.index(annotation.answer)])

    def _encoded(self, clips: Sequence[VideoClip], text: str) -> dict[str, torch.Tensor]:
        content = [*({"type": "video", "video": clip} for clip in clips), {"type": "text", "text": text}]
        with as_prompt_error(f"{self.settings.model} cannot look at this video"):
            encoded = self._prompts([{"prompt": [{"role": "user", "content": content}]}])
        return {name: value.to(self._model.device) for name, value in encoded.items()}

    def _reply(self, text: str) -> torch.Tensor:
        return AnswerCollator(self._prompts).encode_answer(text).to(self._model.device)  # (R,)

    def _log_probabilities(self, inputs: dict[str, torch.Tensor], replies: list[torch.Tensor]) -> torch.Tensor:
        """Of each reply among all of them."""
        first = torch.stack([reply[0] for reply in replies])
        if len(first.unique()) == len(replies):
            return self._logits(inputs, 1)[0, -1, first].log_softmax(dim=0)
        return torch.stack([self._log_likelihood(inputs, reply) for reply in replies]).log_softmax(dim=0)

    def _log_likelihood(self, inputs: dict[str, torch.Tensor], reply: torch.Tensor) -> torch.Tensor:
        batch = append_answers(inputs, [reply], self._prompts.processor.tokenizer.pad_token_id)
        del batch["labels"]
        logits = self._logits(batch, len(reply) + 1)[0, :-1]  # (R, V)
        return logits.log_softmax(dim=-1).gather(1, reply[:, None]).sum()

    def _logits(self, inputs: dict[str, torch.Tensor], count: int) -> torch.Tensor:
        """Those of the last positions, (B, count, V), in float32."""
        return self._model(**inputs, use_cache=False, logits_to_keep=count).logits[:, -count:].float()

    def _seen(self, annotation: Annotation) -> VideoClip:
        frames = read_seen(annotation, self.settings.num_frames)
        times = frame_times(annotation.video)
        return _clip(frames, evenly_spaced(times[seen_frames(annotation, times)], len(frames)))

    def _sampled(self, thought: ThoughtVideo) -> VideoClip:
        frames = thought.read()
        chosen = np.linspace(0, len(frames) - 1, min(self.settings.num_frames, len(frames))).round().astype(int)
        return _clip(frames[chosen], chosen / thought.fps)


def _clip(frames: np.ndarray, seconds: np.ndarray) -> VideoClip:
    """Frames (T, H, W, 3) that were read elsewhere, with their times counted from the first."""
    return VideoClip(frames, seconds - seconds[0], len(frames), len(frames), 0, 0, "pyav")
