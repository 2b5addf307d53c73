"""Number of tokens of a clip, as the backbone's video processor cuts it."""

from dataclasses import dataclass

from storm_hf.errors import BackboneError, ConfigurationError
from storm_hf.planning.backbone import Backbone


_NUM_CHANNELS = 3
_NUM_MARKERS = 2  # around a clip


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
