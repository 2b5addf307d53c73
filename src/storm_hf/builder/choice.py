"""Instantiate the prompt writer, the generator and the filters of a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.builder.records import DUPLICATE
from storm_hf.builder.scorer import FrozenScorer, ScorerSettings
from storm_hf.chat import ChatModel, PipelineChat, ServedChat
from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import (
    AnswerFreeGate,
    AnswerScorer,
    ChatPrompt,
    DiffusersGenerator,
    DiffusersSettings,
    FirstFrameGate,
    FolderGenerator,
    FutureGenerator,
    Gate,
    GiveawayGate,
    PromptWriter,
    SceneBreakGate,
    StaticGate,
    TemplatePrompt,
    ThoughtVideoGenerator,
    VisualGainGate,
)


ScorerOf = Callable[[ScorerSettings], AnswerScorer]
_GENERATORS: Mapping[str, Callable[..., ThoughtVideoGenerator]] = {
    "future": FutureGenerator,
    "folder": FolderGenerator,
    "diffusers": lambda **settings: DiffusersGenerator(DiffusersSettings(**settings)),
}
_CHATS: Mapping[str, Callable[..., ChatModel]] = {"chat": ServedChat, "pipeline": PipelineChat}
_GATES: Mapping[str, Callable[..., Gate]] = {
    "static": StaticGate,
    "scene_break": SceneBreakGate,
    "first_frame": FirstFrameGate,
}
_ASKING_GATES: Mapping[str, Callable[..., Gate]] = {
    "visual_gain": VisualGainGate,
    "answer_free": AnswerFreeGate,
    "giveaway": GiveawayGate,
}
_CONTROL_TEMPLATE = "{question} The video goes on and shows step by step what happens."


def generator_of(recipe: ThoughtsRecipe, split: str) -> ThoughtVideoGenerator:
    """Make the generator of a split; a simulator has the knobs of its split.

    Raises:
        ConfigurationError: If there is no such generator, or it has no such setting.
    """
    kind, settings = _one(recipe.generator, "generator", (*_GENERATORS, "simulator"))
    if kind != "simulator":
        return _made(_GENERATORS[kind], settings, f"the generator {kind}")
    if recipe.world is None:
        raise ConfigurationError("The generator simulator needs a world, but the recipe has sources. Use another one.")
    return recipe.world.simulator_of(split)


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
    gates: list[Gate] = []
    for kind, given in recipe.gates.items():
        settings = dict(given or {})
        if kind == "answer_free":
            settings["writer"] = TemplatePrompt(settings.pop("template", _CONTROL_TEMPLATE))
            settings["generator"] = generator or generator_of(recipe, "train")
        if kind in _ASKING_GATES:
            settings = _with_scorer(settings, scorer_of, f"the gate {kind}")
        if kind != DUPLICATE:
            gates.append(_made({**_GATES, **_ASKING_GATES}[kind], settings, f"the gate {kind}"))
    return gates


def _with_scorer(settings: Mapping[str, Any], scorer_of: ScorerOf, what: str) -> dict[str, Any]:
    """Replace the settings of the frozen model by what scores."""
    of_model = {field.name for field in fields(ScorerSettings)}
    asked = {name: value for name, value in settings.items() if name in of_model}
    own = {name: value for name, value in settings.items() if name not in of_model}
    return {**own, "scorer": scorer_of(_made(ScorerSettings, asked, what))}


def _one(choice: Mapping[str, Any], what: str, known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    if len(choice) != 1 or next(iter(choice)) not in known:
        raise ConfigurationError(
            f"Expected one of {', '.join(known)} as {what}, with its settings, but got {dict(choice)}."
        )
    kind, settings = next(iter(choice.items()))
    return kind, dict(settings or {})


def _made(make: Callable[..., Any], settings: Mapping[str, Any], what: str) -> Any:
    try:
        return make(**settings)
    except TypeError as error:
        raise ConfigurationError(f"The settings of {what} do not fit: {error}.") from error
