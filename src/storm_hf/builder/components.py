"""Components of a recipe: its prompt writer, generator, filters, vision tower and answer scorer.

The answer scorer is shown the clip as the question sees it, the thought video, or both, and is never trained.

Axes: B batch (one question), S sequence, R tokens of a reply, V vocabulary, T frames, H height, W width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from storm_hf.annotations import Annotation
from storm_hf.builder.recipe import ModelSettings, ThoughtsRecipe
from storm_hf.builder.row_steps import DUPLICATE, Row
from storm_hf.checkpoints.loading import read_config
from storm_hf.errors import ConfigurationError
from storm_hf.inputs.collator import AnswerCollator, append_answers
from storm_hf.inputs.prompts import PromptEncoder, as_prompt_error
from storm_hf.inputs.wording import LETTERS, QuestionStyle, format_answer, format_question
from storm_hf.llm import ChatModel, PipelineChat, ServedChat
from storm_hf.model import register, storm_processor
from storm_hf.settings import PositiveInt, make_settings
from storm_hf.target_trajectory.encode import ShardEncoder
from storm_hf.thought_video import (
    AnswerFreeGate,
    AnswerScorer,
    AskedExample,
    ChatPrompt,
    DiffusersGenerator,
    DiffusersSettings,
    EvidenceGenerator,
    FilmRecipe,
    FirstFrameGate,
    FolderGenerator,
    FutureGenerator,
    Gate,
    GiveawayGate,
    PromptWriter,
    RenderedChainGenerator,
    SceneBreakGate,
    StatedAnswerGate,
    StaticGate,
    TemplatePrompt,
    ThoughtExample,
    ThoughtVideo,
    ThoughtVideoGenerator,
    VisualGainGate,
    WorldExample,
    WorldRecipe,
)
from storm_hf.thought_video.clip_part import frame_times, read_seen, seen_frames
from storm_hf.thought_video.generator import ClipWriter
from storm_hf.video import VideoClip
from storm_hf.video.sample import evenly_spaced


@dataclass(frozen=True, kw_only=True)
class ScorerSettings(ModelSettings):
    """Settings of the frozen model that scores answers.

    Args:
        num_frames (`int`, *optional*, defaults to `8`):
            Frames shown of the clip, evenly over what the question sees, and as many of the thought video.
        question_style (`str`, *optional*, defaults to `"letters"`):
            Style of the options; see `format_question`. A model that knows words alone needs `words`.
    """

    num_frames: PositiveInt = 8
    question_style: QuestionStyle = "letters"


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


ScorerOf = Callable[[ScorerSettings], AnswerScorer]
_GENERATORS: Mapping[str, Callable[..., ThoughtVideoGenerator]] = {
    "future": FutureGenerator,
    "folder": FolderGenerator,
    "diffusers": lambda **settings: DiffusersGenerator(DiffusersSettings(**settings)),
    "rendered_chain": lambda **settings: make_settings(
        RenderedChainGenerator, settings, "the generator rendered_chain"
    ),
    "evidence": lambda **settings: make_settings(EvidenceGenerator, settings, "the generator evidence"),
}
_CHATS: Mapping[str, Callable[..., ChatModel]] = {"chat": ServedChat, "pipeline": PipelineChat}
_GATES: Mapping[str, Callable[..., Gate]] = {
    "static": StaticGate,
    "scene_break": SceneBreakGate,
    "first_frame": FirstFrameGate,
    "stated_answer": StatedAnswerGate,
}
_ASKING_GATES: Mapping[str, Callable[..., Gate]] = {
    "visual_gain": VisualGainGate,
    "answer_free": AnswerFreeGate,
    "giveaway": GiveawayGate,
}
_CONTROL_TEMPLATE = "{question} The video goes on and shows step by step what happens."


def check_components(recipe: ThoughtsRecipe, generator: ThoughtVideoGenerator | None = None) -> None:
    """Check the settings of a recipe's generator, gates, prompts and encoder, before hours of work. No weights are read.

    Args:
        recipe ([`ThoughtsRecipe`]):
            The recipe.
        generator ([`ThoughtVideoGenerator`], *optional*):
            Makes thought videos instead of the recipe's.

    Raises:
        CheckpointError: If there is no such encoder.
        ConfigurationError: If a component or one of its settings does not exist, or a value is out of its range.
        DatasetError: If there are no films where the recipe names some, or a film is in two splits.
    """
    generators = {split: generator or generator_of(recipe, split) for split in recipe.splits}
    gates_of(recipe, generators["train"])
    prompts_of(recipe, Path(recipe.output_dir))
    read_config(recipe.encoder.model, revision=recipe.encoder.revision)


def generator_of(recipe: ThoughtsRecipe, split: str) -> ThoughtVideoGenerator:
    """Make the generator of a split: a simulator has its knobs, and `segments` its films.

    Raises:
        ConfigurationError: If there is no such generator, or it has no such setting.
        DatasetError: If there are no films where it needs some, or a film is in two splits.
    """
    kind, settings = _one(recipe.generator, "generator", (*_GENERATORS, "simulator", "segments"))
    if recipe.shows_evidence:
        _check_has_evidence(recipe, kind)
    if kind == "rendered_chain":
        settings = _at_frame_size(settings, recipe)
    if kind == "simulator":
        return _drawn_by(recipe.world, kind, "a world").simulator_of(split)
    make = _GENERATORS.get(kind) or partial(_drawn_by(recipe.films, kind, "films").generator_of, split)
    return _made(make, settings, f"the generator {kind}")


def _check_has_evidence(recipe: ThoughtsRecipe, kind: str) -> None:
    """Refuse a recipe none of whose rows can have what its generator shows."""
    if not recipe.sources and (kind == "evidence" or recipe.world is None):
        shown = "a chain of thought, or a world" if kind == "rendered_chain" else "intervals or key frames"
        raise ConfigurationError(
            f"The generator {kind} needs sources whose rows have {shown}, but the recipe has none. Use another one."
        )


def _at_frame_size(settings: Mapping[str, Any], recipe: ThoughtsRecipe) -> dict[str, Any]:
    """Draw at the size of the data set: pictures of text that are scaled and cropped later cannot be read."""
    if recipe.frame_size is None:
        return dict(settings)
    if settings.get("frame_size", recipe.frame_size) not in (recipe.frame_size, list(recipe.frame_size)):
        raise ConfigurationError(
            f"Expected one frame_size but the recipe has {list(recipe.frame_size)} and the generator rendered_chain "
            f"{settings['frame_size']}. Remove one of them: text is drawn at the size of the data set."
        )
    return {**settings, "frame_size": recipe.frame_size}


def clip_writer_of(recipe: ThoughtsRecipe, split: str) -> ClipWriter | None:
    """Make the writer of a split's clips, or None where clips come with annotations."""
    if recipe.world is not None:
        return recipe.world.simulator_of(split)
    return recipe.films.generator_of(split) if recipe.films is not None else None


_DrawnT = TypeVar("_DrawnT", bound=FilmRecipe | WorldRecipe)


def _drawn_by(drawn: _DrawnT | None, kind: str, what: str) -> _DrawnT:
    """Return what a generator makes its videos of, which a recipe with other questions has not."""
    if drawn is None:
        raise ConfigurationError(f"The generator {kind} needs {what}, but the recipe has none. Use another one.")
    return drawn


def prompts_of(recipe: ThoughtsRecipe, cache: Path) -> PromptWriter:
    """Make what writes prompts.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Says which.
        cache (`Path`):
            Folder in which the answers of a chat model are kept.

    Raises:
        ConfigurationError: If there is no such writer, or it has no such setting.
    """
    kind, settings = _one(recipe.prompts, "prompts", ("template", *_CHATS))
    if kind == "template":
        return _made(TemplatePrompt, settings, "the template")
    frames = settings.pop("num_key_frames", 0)
    request = {"request": TemplatePrompt(settings.pop("request"))} if "request" in settings else {}
    if kind == "pipeline":
        settings = {"sees_images": bool(frames), **settings}
    return ChatPrompt(_made(_CHATS[kind], settings, f"the {kind}"), cache, num_key_frames=frames, **request)


def gates_of(
    recipe: ThoughtsRecipe, generator: ThoughtVideoGenerator | None = None, scorer_of: ScorerOf = FrozenScorer
) -> list[Gate]:
    """Make the gates that look at one thought video, in their order. Duplicates are looked for in all of them, later.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Says which.
        generator ([`ThoughtVideoGenerator`], *optional*):
            Makes the controls of `answer_free`. By default the recipe's, of the training split.
        scorer_of (`Callable[[ScorerSettings], AnswerScorer]`, *optional*):
            Makes the frozen model that some gates ask.

    Raises:
        ConfigurationError: If there is no such gate, or it has no such setting.
    """
    known = (*_GATES, *_ASKING_GATES, DUPLICATE)
    if unknown := sorted(set(recipe.gates) - {*known}):
        raise ConfigurationError(f"Expected gates among {', '.join(known)} but got {', '.join(unknown)}.")
    if recipe.gates:
        _check_applicable(recipe, generator or generator_of(recipe, "train"))
    gates: list[Gate] = []
    for kind, given in recipe.gates.items():
        settings = _mapping(given, f"the gate {kind}")
        if kind == "answer_free":
            settings["writer"] = TemplatePrompt(settings.pop("template", _CONTROL_TEMPLATE))
            settings["generator"] = generator or generator_of(recipe, "train")
        if kind in _ASKING_GATES:
            settings = _with_scorer(settings, scorer_of, f"the gate {kind}")
        if kind != DUPLICATE:
            gates.append(_made({**_GATES, **_ASKING_GATES}[kind], settings, f"the gate {kind}"))
    return gates


def _check_applicable(recipe: ThoughtsRecipe, generator: ThoughtVideoGenerator) -> None:
    """Refuse gates that make no sense for the thought videos of a generator, with its reasons."""
    inapplicable: Mapping[str, str] = getattr(generator, "inapplicable_gates", {})
    if reasons := {gate: inapplicable[gate] for gate in recipe.gates if gate in inapplicable}:
        listed = "; ".join(f"{gate}, since {reason}" for gate, reason in reasons.items())
        raise ConfigurationError(
            f"Expected gates that apply to thought videos of {generator.source} but got {listed}. Remove from `gates` what does "
            "not apply."
        )
    if "stated_answer" in recipe.gates and not isinstance(generator, RenderedChainGenerator):
        raise ConfigurationError(
            f"The gate stated_answer reads the text of rendered_chain, and {generator.source} draws none. Remove it."
        )


def _with_scorer(settings: Mapping[str, Any], scorer_of: ScorerOf, what: str) -> dict[str, Any]:
    """Replace the settings of the frozen model by what scores."""
    of_model = {field.name for field in fields(ScorerSettings)}
    asked = {name: value for name, value in settings.items() if name in of_model}
    own = {name: value for name, value in settings.items() if name not in of_model}
    return {**own, "scorer": scorer_of(make_settings(ScorerSettings, asked, what))}


def _one(choice: Mapping[str, Any], what: str, known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    if len(choice) != 1 or next(iter(choice)) not in known:
        raise ConfigurationError(
            f"Expected one of {', '.join(known)} as {what}, with its settings, but got {dict(choice)}."
        )
    kind, settings = next(iter(choice.items()))
    return kind, _mapping(settings, f"{what} {kind}")


def _mapping(settings: object, what: str) -> dict[str, Any]:
    """Copy what a recipe gives for a component; nothing given is no settings."""
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigurationError(f"Expected the settings of {what} as a mapping but got {settings!r}.")
    return dict(settings or {})


def _made(make: Callable[..., Any], settings: Mapping[str, Any], what: str) -> Any:
    try:
        return make(**settings)
    except TypeError as error:
        raise ConfigurationError(f"The settings of {what} do not fit: {error}.") from error


def load_encoder(recipe: ThoughtsRecipe, folder: Path) -> ShardEncoder:
    """Load the model and what belongs to it.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Says which, in which dtype, and how many threads this process has from now on.
        folder (`Path`):
            The data set.

    Raises:
        CheckpointError: If there is no such model.
    """
    register()
    settings = recipe.encoder
    read_config(settings.model, revision=settings.revision)  # names a model that is not there
    processor = AutoProcessor.from_pretrained(settings.model, revision=settings.revision)
    return ShardEncoder(
        folder,
        load_model(settings),
        processor,
        name=settings.model,
        batch_size=settings.batch_size,
        is_world=recipe.world is not None,
        has_wordings=recipe.world is not None and recipe.world.has_wordings,
        keeps_thoughts=recipe.keep_thoughts,
    )


def load_model(settings: ModelSettings) -> PreTrainedModel:
    """Load a video-language model to be asked, and give this process as many threads as it may have."""
    torch.set_num_threads(settings.threads)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, settings.dtype)
    model = AutoModelForImageTextToText.from_pretrained(settings.model, revision=settings.revision, dtype=dtype)
    return model.to(device).eval()


def example_of(row: Row, folder: Path) -> ThoughtExample:
    """The example that a row with a thought video makes; a world's knows more."""
    annotation = row.annotation
    question: dict[str, Any] = {
        "id": annotation.id,
        "video": folder / row.video,
        "question": annotation.question,
        "options": annotation.options,
        "answer": annotation.answer,
        "thought": row.thought_video(folder),
    }
    if not row.words:
        return ThoughtExample(
            **question,
            clip_source=annotation.source or "unknown",
            clip_license=annotation.license or "unknown",
            clip_file=annotation.video.name,
        )
    words: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row.words.items()
        if name != "asked"
    }
    kind = AskedExample if "outcome" in words else WorldExample
    return kind(**question, **words)
