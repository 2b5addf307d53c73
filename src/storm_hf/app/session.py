"""Session of a user with a model: answers about a clip, direct answers, and answers with changed latents. Nothing here knows Gradio.

Axes: K latent steps, N entries of the gallery, D hidden size, H height, W width, in pixels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from transformers import ProcessorMixin

from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.diagnostics.latent_decoder import ThoughtDecoder
from storm_hf.errors import CheckpointError, ConfigurationError, LatentError, PromptError
from storm_hf.evaluation.batch import Answer, counted_passes, passes_until_first_token
from storm_hf.evaluation.session import StormSession
from storm_hf.evaluation.single import ClipQuestion, read_clip
from storm_hf.evaluation.thought_gallery import TEMPERATURE, Gallery, describe_latents, unit_vectors
from storm_hf.hub.card_metadata import worlds_only
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.target_trajectory.schema import MANIFEST
from storm_hf.video import VideoClip, read_video


_NUM_NAMED = 2
_SMALLEST_SHARE = 0.01  # of a second state that is named


@dataclass(frozen=True, eq=False)
class SeenStep:
    """One latent, as far as it can be seen.

    Args:
        norm (`float`):
            Euclidean length.
        cosine_to_previous (`float` or `None`):
            Cosine to the latent before it; None at the first step.
        resembles (`tuple[tuple[str, float], ...]`):
            State of the known thought nearest to it, and the runner-up, each with the share of the similarity that falls on
            known thoughts of that state. Empty without a gallery.
        picture (`np.ndarray` of shape `(height, width, 3)`, *optional*):
            The latent, drawn, `uint8`. None without a decoder.
    """

    norm: float
    cosine_to_previous: float | None
    resembles: tuple[tuple[str, float], ...] = ()
    picture: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LatentView:
    """Means that a checkpoint has to show its latents.

    Args:
        decoder ([`~storm_hf.diagnostics.latent_decoder.ThoughtDecoder`], *optional*):
            Draws them.
        gallery ([`~storm_hf.evaluation.thought_gallery.Gallery`], *optional*):
            Known thoughts to compare them with.
    """

    decoder: ThoughtDecoder | None = None
    gallery: Gallery | None = None

    @classmethod
    def of(cls, checkpoint: Path) -> "LatentView":
        """Read what lies in the folder of a checkpoint.

        Raises:
            CheckpointError: If it is damaged.
        """
        return cls(ThoughtDecoder.load(checkpoint), Gallery.load(checkpoint))

    def look(self, latents: np.ndarray) -> tuple[SeenStep, ...]:
        """Look at the latents of one rollout, of shape (K, D).

        Raises:
            CheckpointError: If the gallery belongs to another model.
            LatentError: If the decoder does.
        """
        described = describe_latents(latents, self.gallery)  # refuses a gallery of another size
        pictures = [None] * len(latents) if self.decoder is None else self.decoder.draw(latents)
        names = [()] * len(latents) if self.gallery is None else nearest_states(latents, self.gallery)
        return tuple(
            SeenStep(step.norm, step.cosine_to_previous, resembles, picture)
            for step, resembles, picture in zip(described, names, pictures, strict=True)
        )


def nearest_states(latents: np.ndarray, gallery: Gallery) -> list[tuple[tuple[str, float], ...]]:
    """Name the state of the known thought nearest to each latent (K, D) and the runner-up; a zero resembles none.

    Shares are those of the demo's report: a softmax over the cosines to all known thoughts, summed by state.
    """
    cosines = unit_vectors(latents) @ unit_vectors(gallery.latents).T  # (K, N)
    return [_shares(row, gallery.states) if latent.any() else () for latent, row in zip(latents, cosines, strict=True)]


def _shares(cosines: np.ndarray, states: Sequence[str]) -> tuple[tuple[str, float], ...]:
    weights = np.exp((cosines - cosines.max()) / TEMPERATURE)
    share_of = dict.fromkeys([states[int(cosines.argmax())]], 0.0)  # the nearest comes first
    for state, weight in zip(states, weights / weights.sum(), strict=True):
        share_of[state] = share_of.get(state, 0.0) + float(weight)
    nearest, *others = share_of.items()
    runners_up = sorted((one for one in others if one[1] >= _SMALLEST_SHARE), key=lambda one: -one[1])
    return (nearest, *runners_up)[:_NUM_NAMED]


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer and what it cost.

    Args:
        text (`str`):
            Text of the answer.
        forward_passes (`int`):
            Calls of the language model before its first word, the reading of the question included.
        seconds (`float`):
            Wall time of the answer, once its clip is read, which is done once for all answers about it.
        steps (`tuple[SeenStep, ...]`):
            Latents that were fed at each step, for display; empty without latents.
        latents (`np.ndarray` of shape `(num_latents, hidden_size)`, *optional*):
            The same, in numbers.
    """

    text: str
    forward_passes: int
    seconds: float
    steps: tuple[SeenStep, ...] = ()
    latents: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Thinking:
    """Answers of a model to one question, with its own latents and without.

    Args:
        question ([`~storm_hf.evaluation.ClipQuestion`]):
            Question that was asked.
        own ([`Reply`]):
            Its answer after thinking.
        direct ([`Reply`]):
            Its answer without a latent.
    """

    question: ClipQuestion
    own: Reply
    direct: Reply


@dataclass(frozen=True, eq=False)
class InterventionAnswer:
    """Answer of a model to the same question with replaced latents.

    Args:
        reply ([`Reply`]):
            Its answer; its steps are what was fed.
        intervention ([`~storm_hf.interventions.intervention.Intervention`]):
            Intervention on the latents.
        donor (`str`, *optional*):
            Answer about the clip that the latents came from; None if they came from no other clip.
    """

    reply: Reply
    intervention: Intervention
    donor: str | None = None


_MAX_SECONDS = 600.0
_MAX_CLIPS = 2  # the one that is asked about, and a donor
MAX_NEW_TOKENS = 64
_BESIDE_THE_MODEL = ["thoughts/*", "decoder/*"]


@dataclass(frozen=True, eq=False)
class Session:
    """A model with all that is needed to ask it and to look at its latents. One question at a time.

    Args:
        name (`str`):
            Name of the model on the page.
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        latent_view ([`~storm_hf.app.session.LatentView`]):
            Shows latents.
        max_seconds (`float`, *optional*, defaults to `600.0`):
            Longest clip.
        folder (`str`, *optional*, defaults to `""`):
            Of the checkpoint, where it lies on this machine.
    """

    name: str
    model: StormForConditionalGeneration
    processor: ProcessorMixin
    latent_view: LatentView
    max_seconds: float = _MAX_SECONDS
    folder: str = ""
    _asking: StormSession = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_asking", StormSession(self.model, self.processor, max_clips=_MAX_CLIPS))

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        max_seconds: float = _MAX_SECONDS,
        load: Callable[[str], tuple[StormForConditionalGeneration, ProcessorMixin]] | None = None,
    ) -> "Session":
        """Load a checkpoint, and what lies beside it to look at its latents: a decoder, a gallery, or neither.

        Args:
            name_or_path (`str`):
                A folder or a name on the Hub.
            max_seconds (`float`, *optional*, defaults to `600.0`):
                Longest clip.
            load (`Callable`, *optional*):
                Loads model and processor, by default onto the accelerator if there is one.

        Raises:
            CheckpointError: If there is no such checkpoint, or it is not whole.
        """
        model, processor = (load or _load)(name_or_path)
        is_local = Path(name_or_path).is_dir()
        name, folder = (Path(name_or_path).name, name_or_path) if is_local else (name_or_path, "")
        return cls(name, model, processor, LatentView.of(_folder_of(name_or_path)), max_seconds, folder)

    @property
    def num_latents(self) -> int:
        """Latent steps that the model thinks for."""
        return int(self.model.config.num_latents)

    @property
    def worlds(self) -> tuple[str, ...]:
        """The worlds that the model was trained on, if it has seen nothing else."""
        return worlds_only(getattr(self.model.config, "trained_on", None))

    @property
    def decoder_command(self) -> str:
        """The command that makes the decoder of a checkpoint on this machine; empty where there is one already."""
        if self.latent_view.decoder is not None or not self.folder:
            return ""
        data = Path(self.folder).parent / "data"  # of a demo's run
        dataset = data if (data / MANIFEST).is_file() else "DATASET"
        return f"storm imagine --model {self.folder} --dataset {dataset} --out runs/imagined"

    def think(self, clip: Path, text: str, options: Sequence[str] = ()) -> Thinking:
        """Answer a question about a clip, after thinking and directly.

        Args:
            clip (`Path`):
                A video file.
            text (`str`):
                The question.
            options (`Sequence[str]`, *optional*):
                The closed set of answers.

        Raises:
            VideoReadError: If the file is no video.
            PromptError: If the clip is too long, there is no question, or both do not fit the model.
            LatentError: If the model has no latents.
        """
        if not text.strip():
            raise PromptError("There is no question yet. Type what you want to know about the clip.")
        if len(options) == 1:
            raise PromptError("One option is no choice. Give two or more, with commas between, or none.")
        if self.num_latents == 0:
            raise LatentError("Expected a model that thinks in latents but this one has none. Load another.")
        question = ClipQuestion(self._read(clip), text.strip(), tuple(options))
        own, direct = (self._timed(question, partial(self._think, num_latents=number)) for number in (None, 0))
        return Thinking(question, own, direct)

    def rethink(
        self,
        thinking: Thinking,
        kind: InterventionKind | str,
        *,
        step: int | None = None,
        source: int | None = None,
        other_clip: Path | None = None,
    ) -> InterventionAnswer:
        """Answer again under an intervention on the latents.

        Args:
            thinking ([`Thinking`]):
                Result of `think`.
            kind ([`~storm_hf.interventions.kind.InterventionKind`]):
                Intervention; `own` feeds a latent of another step.
            step (`int`, *optional*):
                Step that is replaced, counted from 0, by default all. The model goes on by itself from there.
            source (`int`, *optional*):
                Step that the new latent comes from, counted from 0. By default each step gets that of the same number.
            other_clip (`Path`, *optional*):
                A video file, for `donor`: the model is asked the same about it.

        Raises:
            ConfigurationError: If the intervention cannot be made, or changes nothing.
            VideoReadError: If the other file is no video.
            PromptError: If the other clip is too long.
        """
        own = _latents(thinking.own)
        if kind == InterventionKind.own and source in (None, step):
            raise ConfigurationError("A step's own latent changes nothing there. Choose another step to take it from.")
        donor = self._answer_about(other_clip, thinking.question) if kind == InterventionKind.donor else None
        latents = (own if donor is None else _latents(donor))[None]  # (1, K, D)
        steps = None if step is None else [step]
        intervention = make_intervention(kind, latents, donors=np.zeros(1, dtype=int), steps=steps, source=source)
        answer = partial(self._asking.ask_under, intervention, num_latents=len(own), max_new_tokens=MAX_NEW_TOKENS)
        reply = self._timed(thinking.question, answer)
        fed = _latents(reply).copy()  # what the model would have fed by itself
        if intervention.fed is not None:
            replaced = list(intervention.replaced)
            fed[replaced] = intervention.fed[0][replaced]
        changed = replace(reply, steps=self.latent_view.look(fed), latents=fed)
        return InterventionAnswer(changed, intervention, None if donor is None else donor.text)

    def _answer_about(self, clip: Path | None, question: ClipQuestion) -> Answer:
        if clip is None:
            raise ConfigurationError("Expected another clip to take latents from. Drop one, or choose an example.")
        asked = ClipQuestion(self._read(clip), question.text, question.options)
        return self._think(asked)

    def _think(self, question: ClipQuestion, num_latents: int | None = None) -> Answer:
        """Think for all steps, also where a halting head would stop: steps of two clips are exchanged."""
        return self._asking.ask(question, num_latents=num_latents, halting=False, max_new_tokens=MAX_NEW_TOKENS)

    def _read(self, clip: Path) -> VideoClip:
        seconds = read_video(clip, num_frames=2, strict=False).duration
        if seconds > self.max_seconds:
            raise PromptError(
                f"The clip is {seconds:.0f} seconds long, and this page takes {self.max_seconds:.0f} at most. Cut it shorter."
            )
        return read_clip(clip, self.processor)

    def _timed(self, question: ClipQuestion, answer: Callable[[ClipQuestion], Answer]) -> Reply:
        """Count the calls of the language model, and take the time."""
        self._asking.read(question)
        started = time.perf_counter()
        with counted_passes(self.model) as calls:
            said = answer(question)
        seconds = time.perf_counter() - started
        before_first = passes_until_first_token(len(calls), len(said.token_ids))
        steps = () if said.latents is None else self.latent_view.look(said.latents)
        return Reply(said.text, before_first, seconds, steps, said.latents)


def _load(name_or_path: str) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    return load_checkpoint(name_or_path, torch.accelerator.current_accelerator(check_available=True) or "cpu")


def _folder_of(name_or_path: str) -> Path:
    """The folder on this machine with what lies beside the weights."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    try:
        return Path(snapshot_download(name_or_path, allow_patterns=_BESIDE_THE_MODEL))
    except OSError as error:
        raise CheckpointError(f"The gallery of {name_or_path} could not be had from the Hub: {error}") from error


def _latents(reply: Reply | Answer) -> np.ndarray:
    if reply.latents is None:
        raise LatentError("There are no latents to change: this answer was given without any.")
    return reply.latents
