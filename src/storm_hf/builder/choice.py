"""From the words of a recipe to what writes prompts, makes thought videos and judges them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import (
    ChatPrompt,
    DiffusersGenerator,
    DiffusersSettings,
    FirstFrameGate,
    FolderGenerator,
    FutureGenerator,
    Gate,
    PromptWriter,
    SceneBreakGate,
    ServedChat,
    SimulatorGenerator,
    StaticGate,
    TemplatePrompt,
    ThoughtVideoGenerator,
)


DUPLICATE = "duplicate"
_GENERATORS: Mapping[str, Callable[..., ThoughtVideoGenerator]] = {
    "future": FutureGenerator,
    "folder": FolderGenerator,
    "diffusers": lambda **settings: DiffusersGenerator(DiffusersSettings(**settings)),
}
_GATES: Mapping[str, Callable[..., Gate]] = {
    "static": StaticGate,
    "scene_break": SceneBreakGate,
    "first_frame": FirstFrameGate,
}


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
    return SimulatorGenerator(recipe.world.world_of(split))


def prompts_of(recipe: ThoughtsRecipe, cache: Path) -> PromptWriter:
    """Make what writes prompts.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Says which.
        cache (`Path`):
            Where the answers of a chat model are kept.

    Raises:
        ConfigurationError: If there is no such writer, or it has no such setting.
    """
    kind, settings = _one(recipe.prompts, "prompts", ("template", "chat"))
    if kind == "template":
        return _made(TemplatePrompt, settings, "the template")
    frames = settings.pop("num_key_frames", 0)
    request = {"request": TemplatePrompt(settings.pop("request"))} if "request" in settings else {}
    return ChatPrompt(_made(ServedChat, settings, "the chat"), cache, num_key_frames=frames, **request)


def gates_of(recipe: ThoughtsRecipe) -> list[Gate]:
    """Make the gates that look at one thought video, in their order. Duplicates are looked for in all of them, later.

    Raises:
        ConfigurationError: If there is no such gate, or it has no such setting.
    """
    if unknown := sorted(set(recipe.gates) - {*_GATES, DUPLICATE}):
        raise ConfigurationError(
            f"Expected gates among {', '.join(_GATES)}, {DUPLICATE} but got {', '.join(unknown)}."
        )
    return [
        _made(_GATES[kind], dict(settings or {}), f"the gate {kind}")
        for kind, settings in recipe.gates.items()
        if kind != DUPLICATE
    ]


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
