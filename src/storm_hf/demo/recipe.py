"""Recipes of the demo: the settings of a world, and what is the same for all worlds."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from storm_hf.errors import ConfigurationError
from storm_hf.worlds import make_world
from storm_hf.worlds.world import DemoSettings, Training


__all__ = ["BACKBONES", "BackboneName", "DemoRecipe", "Training", "demo_recipe"]

BackboneName = Literal["tiny", "smollm2"]
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
_OPEN_SHARE = 0.5  # trained on questions with options only, a model guesses when it is asked without them
_SHALLOW, _DEEP = 32, 64  # test clips of a depth that a language model answers
_PRETRAINED: Mapping[str, Any] = {  # what differs where the backbone is a pretrained language model
    "variants": ("direct", "storm"),
    "trainings": {
        "base": Training(160, 5e-4),
        "align": Training(350, 1e-3),
        "answer": Training(60, 1e-4),
        **dict.fromkeys(("direct", "chain_of_thought", "terse_chain"), Training(215, 3e-4)),
    },
    "vision_rate_factor": 4.0,
    "thought_adapter_rank": 32,
    "projector_rate_factor": 1.5,
    "batch_size": 20,
    "num_gallery": 128,
    "num_per_depth": _SHALLOW,
    "wordings": "trained",
}


@dataclass(frozen=True, kw_only=True)
class DemoRecipe(DemoSettings):
    """Everything that determines a run of the demo, besides the code.

    Args:
        world (`str`):
            Name of the world. Its own settings are those of [`~storm_hf.worlds.world.DemoSettings`].
        seed (`int`):
            Seed of data, weights and order.
        naive_targets (`bool`):
            Whether the targets are pooled features of unit size that were not whitened.
        frame_pixels (`int`):
            Pixels that the video processor leaves of a frame.
        num_gallery (`int`, *optional*, defaults to `256`):
            Thought frames of validation clips that latents are compared with.
        num_per_depth (`int`, *optional*, defaults to `64`):
            Test clips of each depth in the accuracy by depth.
        batch_size (`int`, *optional*, defaults to `48`):
            Clips of an update.
        num_latents (`int`, *optional*, defaults to `6`):
            Number K of latent steps, one for each step of the world.
        canvas (`tuple[int, int]`, *optional*):
            Height and width that frames are padded to; see [`WorldRecipe`].
        open_share (`float`, *optional*, defaults to `0.0`):
            Share of the training questions that are asked without their options; see [`WorldSplit`].
        backbone (`str`, *optional*, defaults to `"tiny"`):
            `"tiny"`, a random model, or `"smollm2"`, a pretrained language model; see [`storm_hf.demo.backbone`].
        variants (`tuple[str, ...]`, *optional*):
            Variants that are trained and shown, of those that [`~storm_hf.demo.demo_variants`] knows, in the order of their start.
        wordings (`str`, *optional*, defaults to `"usual"`):
            Wordings of the training questions; see [`WorldSplit`]. Those that are never trained on are tested as the second form.
        vision_rate_factor (`float`, *optional*, defaults to `1.0`):
            Learning rate of the vision tower of the base, in units of that of the language model.
        projector_rate_factor (`float`, *optional*, defaults to `1.0`):
            The same of the latent projector, in both stages.
        thought_adapter_rank (`int`, *optional*):
            Rank of the adapter that variants with latents train, and with its vision tower the base; see [`StormConfig`]. What has
            no latents begins with the adapter merged, and is trained as the next argument says.
        lora_rank (`int`, *optional*):
            Rank of the adapter that is trained on the language model, and merged into it. By default it is trained whole.
        keep_language (`float`, *optional*, defaults to `0.0`):
            Weight of the divergence from the backbone on plain rows, in every training; see [`StormTrainingConfig`].
        language_batch_size (`int`, *optional*, defaults to `8`):
            Plain rows beside each batch of clips.
    """

    world: str
    seed: int
    naive_targets: bool
    frame_pixels: int
    num_gallery: int = 256
    num_per_depth: int = 64
    batch_size: int = 48
    num_latents: int = 6
    canvas: tuple[int, int] | None = None
    open_share: float = 0.0
    backbone: BackboneName = "tiny"
    variants: tuple[str, ...] = ("direct", "chain_of_thought", "storm", "terse_chain")  # STORM begins with Stage I
    wordings: Literal["usual", "trained"] = "usual"
    vision_rate_factor: float = 1.0
    projector_rate_factor: float = 1.0
    thought_adapter_rank: int | None = None
    lora_rank: int | None = None
    keep_language: float = 0.0
    language_batch_size: int = 8

    @property
    def deep_clips(self) -> str:
        """Name the clips that variants and interventions are tested on, such as `"clips with 5 or 6 swaps"`."""
        return f"clips with {' or '.join(map(str, self.deep))} {self.depth_unit}"

    @property
    def second_form(self) -> str:
        """Name the form in which the deep clips are asked about again, such as `"without options"`."""
        return "without options" if self.wordings == "usual" else "in wordings never trained on"

    @property
    def chain_in_sentences(self) -> str:
        """Name the column of the reasoning in sentences: one of a small vocabulary, or one that a language model would write."""
        return "chain_of_thought" if self.wordings == "usual" else "spoken_chain"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, to be kept beside the run."""
        return asdict(self)


def demo_recipe(
    world: str = "shuffle", seed: int = 0, naive_targets: bool = False, backbone: BackboneName = "tiny"
) -> DemoRecipe:
    """Look up what the demo does for a world.

    Args:
        world (`str`, *optional*, defaults to `"shuffle"`):
            One of [`~storm_hf.worlds.WORLD_NAMES`].
        seed (`int`, *optional*, defaults to `0`):
            Seed of data, weights and order.
        naive_targets (`bool`, *optional*, defaults to `False`):
            Whether to leave the targets as pooled, at unit size and not whitened, to see the failure.
        backbone (`str`, *optional*, defaults to `"tiny"`):
            `"tiny"` or `"smollm2"`; see [`DemoRecipe`].

    Raises:
        ConfigurationError: If there is no such world or backbone.
    """
    if backbone not in BACKBONES:
        raise ConfigurationError(f"Expected a backbone of {', '.join(BACKBONES)} but got {backbone!r}.")
    settings = vars(make_world(world).demo)
    drawn = make_world(world, **settings["knobs"])
    if naive_targets:
        settings = settings | {"target_layout": "average"}  # cells side by side need whitening
    if backbone == "smollm2":
        settings = {**settings, **_PRETRAINED, "test_depths": _few_tests(settings)}
    else:
        settings = settings | {"open_share": _OPEN_SHARE}
    return DemoRecipe(
        **settings,
        world=world,
        seed=seed,
        naive_targets=naive_targets,
        frame_pixels=math.prod(drawn.frame_size),
        backbone=backbone,
    )


def _few_tests(settings: Mapping[str, Any]) -> dict[int, int]:
    """Keep fewer test clips of each depth: a pretrained model answers a hundred times slower."""
    return {depth: _DEEP if depth in settings["deep"] else _SHALLOW for depth in settings["test_depths"]}
