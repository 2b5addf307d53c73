"""Backbone of a recipe: its configuration, its video processor, and the tokens of a clip.

Those of our own recipes are in the folder `backbones`, with the numbers of the published `config.json`, and need no network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from storm_hf.errors import BackboneError, CheckpointError, ConfigurationError
from storm_hf.model import StormConfig


_FOLDER = Path(__file__).with_name("backbones")
KNOWN = tuple(sorted(folder.relative_to(_FOLDER).as_posix() for folder in _FOLDER.glob("*/*")))
_NUM_CHANNELS = 3
_NUM_MARKERS = 2  # around a clip


@dataclass(frozen=True)
class Backbone:
    """Properties of a backbone that a plan uses.

    Args:
        name (`str`):
            Source of the backbone.
        config ([`~transformers.PreTrainedConfig`]):
            Of the video-language model, without STORM.
        video_processor ([`~transformers.BaseVideoProcessor`], *optional*):
            Processor that cuts clips into patches; `None` if there is none.
        storm ([`StormConfig`], *optional*):
            Configuration of a checkpoint that is a STORM already.
        tokens_around_frame (`int`, *optional*, defaults to `0`):
            Tokens that are written around each two frames, such as their time.
    """

    name: str
    config: Any
    video_processor: Any = None
    storm: StormConfig | None = None
    tokens_around_frame: int = 0


def is_checkpoint(name: str) -> bool:
    """Return True if `name` is a folder with a configuration."""
    return Path(name, "config.json").is_file()


def load_backbone(name: str) -> Backbone:
    """Read a backbone's configuration: a folder, one of the known, or a name on the Hub.

    Raises:
        BackboneError: If it is no video-language model.
        CheckpointError: If there is no configuration to be read.
    """
    place = str(_FOLDER / name) if name in KNOWN and not is_checkpoint(name) else name
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected a backbone whose configuration can be read, got {name!r}, which is no folder with a `config.json`, nor "
            "can it be reached on the Hub. Name a folder that has one with --model; without a network, these are known: "
            f"{', '.join(KNOWN)}."
        ) from error
    storm = config if config.model_type == "storm" else None
    config = config if storm is None else storm.vlm_config
    if getattr(config, "vision_config", None) is None:
        raise BackboneError(f"Expected a video-language backbone, got {name!r} of the type `{config.model_type}`.")
    written = getattr(config, "tokens_around_frame", None)  # of the known, which have no tokenizer
    return Backbone(
        name, config, _video_processor(place), storm, _tokens_around_frame(place) if written is None else written
    )


def _video_processor(place: str) -> Any:
    try:
        return AutoVideoProcessor.from_pretrained(place)
    except (OSError, ValueError):  # a folder with a configuration alone
        return None


def _tokens_around_frame(place: str) -> int:
    """Let the processor write the placeholders of a small clip, and count the tokens beside them."""
    try:
        processor = AutoProcessor.from_pretrained(place)
    except (OSError, ValueError):
        return 0
    side = getattr(getattr(processor, "video_processor", None), "merge_size", None)
    if side is None:
        return 0
    num_pairs = 2
    clip = {
        "video_grid_thw": torch.tensor([[num_pairs, side, side]]),
        "video_metadata": [VideoMetadata(total_num_frames=4, fps=1.0, frames_indices=[0, 1, 2, 3])],
    }
    written = processor.tokenizer(processor.replace_video_token(clip, 0)).input_ids
    return (len(written) - num_pairs) // num_pairs


@dataclass(frozen=True)
class ClipTokens:
    """Size of a clip at its way through the model.

    Args:
        patches (`int`):
            Patches that pass through the vision tower.
        grids (`int`):
            Pairs of frames, whose patches attend to one another.
        video (`int`):
            Tokens that come out of the merger.
        separators (`int`):
            Tokens that are written around them.
        patch_pixels (`int`):
            Numbers in a patch, as the processor makes it.
    """

    patches: int
    grids: int
    video: int
    separators: int
    patch_pixels: int


def clip_tokens(backbone: Backbone, num_frames: int, width: int, height: int) -> ClipTokens:
    """Count the tokens of a clip: T / 2 x H / (patch x merge) x W / (patch x merge), after the processor's resizing.

    Args:
        backbone ([`~storm_hf.planning.backbone.Backbone`]):
            Its video processor says how clips are resized.
        num_frames (`int`):
            Number T of frames that are read.
        width (`int`):
            Width W of the clip in pixels.
        height (`int`):
            Height H in pixels.

    Raises:
        BackboneError: If the backbone's processor does not say.
    """
    processor = backbone.video_processor
    if not hasattr(processor, "get_num_of_video_patches"):
        raise BackboneError(
            f"How many tokens a clip is, the processor of {backbone.name} does not say. Give their number with --prompt-tokens."
        )
    try:
        patches = processor.get_num_of_video_patches(num_frames, height, width, {})
    except ValueError as error:
        raise ConfigurationError(
            f"A clip of {width} x {height} with {num_frames} frames cannot be read: {error}"
        ) from error
    return _sized(backbone, patches, -(-num_frames // processor.temporal_patch_size))


def clip_of_prompt(backbone: Backbone, num_tokens: int, num_frames: int) -> ClipTokens | None:
    """Find the clip whose tokens fill `num_tokens`, up to what no whole number of tokens for each two frames fills.

    Returns:
        [`ClipTokens`] or `None`: `None` for a backbone that does not merge patches on a grid, and where there is no room.
    """
    vision = backbone.config.vision_config
    if not all(hasattr(vision, name) for name in ("patch_size", "spatial_merge_size", "temporal_patch_size")):
        return None
    grids = -(-num_frames // vision.temporal_patch_size)
    patches = num_tokens // grids * grids * vision.spatial_merge_size**2
    return _sized(backbone, patches, grids) if patches else None


def _sized(backbone: Backbone, patches: int, grids: int) -> ClipTokens:
    vision = backbone.config.vision_config
    return ClipTokens(
        patches=patches,
        grids=grids,
        video=patches // vision.spatial_merge_size**2,
        separators=backbone.tokens_around_frame * grids + _NUM_MARKERS,
        patch_pixels=_NUM_CHANNELS * vision.temporal_patch_size * vision.patch_size**2,
    )
