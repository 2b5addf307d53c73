"""Recipes of the demo: the settings of a world, and what is the same for all worlds."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from storm_hf.worlds import make_world
from storm_hf.worlds.world import DemoSettings, Training


__all__ = ["DemoRecipe", "Training", "demo_recipe"]

_OPEN_SHARE = 0.5  # trained on questions with options only, a model guesses when it is asked without them


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

    @property
    def deep_clips(self) -> str:
        """Name the clips that variants and interventions are tested on, such as `"clips with 5 or 6 swaps"`."""
        return f"clips with {' or '.join(map(str, self.deep))} {self.depth_unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, to be kept beside the run."""
        return asdict(self)


def demo_recipe(world: str = "shuffle", seed: int = 0, naive_targets: bool = False) -> DemoRecipe:
    """Look up what the demo does for a world.

    Args:
        world (`str`, *optional*, defaults to `"shuffle"`):
            One of [`~storm_hf.worlds.WORLD_NAMES`].
        seed (`int`, *optional*, defaults to `0`):
            Seed of data, weights and order.
        naive_targets (`bool`, *optional*, defaults to `False`):
            Whether to leave the targets as pooled, at unit size and not whitened, to see the failure.

    Raises:
        ConfigurationError: If there is no such world.
    """
    settings = vars(make_world(world).demo)
    drawn = make_world(world, **settings["knobs"])
    if naive_targets:
        settings = settings | {"target_layout": "average"}  # cells side by side need whitening
    return DemoRecipe(
        **settings,
        world=world,
        seed=seed,
        naive_targets=naive_targets,
        frame_pixels=math.prod(drawn.frame_size),
        open_share=_OPEN_SHARE,
    )
