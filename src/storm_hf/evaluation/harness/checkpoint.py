"""Models of an evaluation: a STORM, an adapter, or a plain checkpoint to compare with."""

import logging
import os
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from storm_hf.checkpoints.loading import is_storm, load_checkpoint, load_plain
from storm_hf.errors import CheckpointError, ConfigurationError
from storm_hf.evaluation.harness.settings import ChatSettings
from storm_hf.interventions.kind import InterventionKind
from storm_hf.model.processing_storm import frame_sampling


STORM = "storm"

logger = logging.getLogger(__name__)


def load_for_harness(settings: ChatSettings) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load model and processor as the settings say, the processor sampling videos and sizing pictures by them.

    Args:
        settings ([`ChatSettings`]):
            Model and settings of the evaluation.

    Raises:
        CheckpointError: If there is no such checkpoint, or a part of it is missing or damaged.
        ConfigurationError: If the processor has no setting for the size of pictures.
    """
    device = None if settings.device_map else settings.device or _default_device()
    loading = {"dtype": settings.dtype, "device_map": settings.device_map}
    loading["attn_implementation"] = settings.attn_implementation
    loading = {name: value for name, value in loading.items() if value is not None}
    if is_storm(settings.pretrained, settings.revision):
        model, processor = load_checkpoint(settings.pretrained, device, revision=settings.revision, **loading)
    else:
        model, processor = _load_plain(settings, device, loading)
    _sample_videos(processor, settings)
    _warn_of_other_frames(model, processor, settings)
    size_pictures(processor, settings)
    return model.eval(), processor


def _default_device() -> str:
    """The accelerator of this process, or the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    return f"{accelerator.type}:{os.environ.get('LOCAL_RANK', '0')}"


def _sample_videos(processor: ProcessorMixin, settings: ChatSettings) -> None:
    """Have videos read with `fps`, or spread evenly over `max_frames`, whatever the checkpoint was saved with."""
    sampler = processor.video_processor
    sampler.do_sample_frames = settings.fps is not None
    sampler.num_frames, sampler.fps = None, settings.fps


def _warn_of_other_frames(model: PreTrainedModel, processor: ProcessorMixin, settings: ChatSettings) -> None:
    """Say that a benchmark shows a STORM other frames than its training did."""
    trained = model.config.prompt_record.frames if model.config.model_type == STORM else {}
    shown = {**frame_sampling(processor.video_processor), "max_frames": settings.max_frames}
    if trained and trained not in (shown, {"num_frames": settings.max_frames}):
        logger.warning(
            "%s was trained with %s, but is evaluated with %s. Set `max_frames` and `fps` to ask as in training.",
            *(settings.pretrained, trained, shown),
        )


def size_pictures(processor: ProcessorMixin, settings: ChatSettings) -> None:
    """Set the smallest and the largest size of pictures and videos.

    Raises:
        ConfigurationError: If the processor resizes in another way.
    """
    edges = {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
    wanted = {name: pixels for name, pixels in edges.items() if pixels is not None}
    if not wanted:
        return
    for part in (processor.video_processor, getattr(processor, "image_processor", None)):
        if part is None:
            continue
        size = dict(part.size)
        if not {"shortest_edge", "longest_edge"} <= set(size):
            raise ConfigurationError(
                f"A {type(part).__name__} does not size pictures by their pixels, so `min_pixels` and `max_pixels` do not "
                "apply. Leave them out."
            )
        part.size = {**size, **wanted}


def _load_plain(
    settings: ChatSettings, device: str | None, loading: dict[str, Any]
) -> tuple[PreTrainedModel, ProcessorMixin]:
    if settings.wanted_latents or settings.latents not in (InterventionKind.own, InterventionKind.no_latents):
        raise CheckpointError(
            f"{settings.pretrained} is a plain checkpoint, which has no latents to think in or to replace. Evaluate it with "
            "num_latents=0, or make a STORM of it with `StormForConditionalGeneration.from_backbone`, and train it."
        )
    model, processor = load_plain(settings.pretrained, device, revision=settings.revision, **loading)
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "video_processor", None) is None:
        raise CheckpointError(
            f"{settings.pretrained} reads no videos: it has no video processor. Evaluate a video-language checkpoint."
        )
    return model, processor
