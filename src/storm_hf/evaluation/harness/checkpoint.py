"""Models of an evaluation: a STORM, an adapter, or a plain checkpoint to compare with."""

import logging
import os
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from storm_hf.checkpoints.adapter import find_adapter
from storm_hf.checkpoints.loading import load_checkpoint, place_of
from storm_hf.errors import CheckpointError, ConfigurationError, first_line
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
        model, processor = _load_plain(settings, loading)
        model = model if device is None else model.to(device)
    _sample_videos(processor, settings)
    _warn_of_other_frames(model, processor, settings)
    size_pictures(processor, settings)
    return model.eval(), processor


def is_storm(name_or_path: str, revision: str | None = None) -> bool:
    """Tell a STORM, or an adapter that makes one, from a plain checkpoint; what cannot be read is left to the loading."""
    try:
        if find_adapter(name_or_path, **place_of(revision)) is not None:
            return True
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **place_of(revision))
        return config.model_type == STORM
    except (OSError, ValueError):
        return True


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


def _load_plain(settings: ChatSettings, loading: dict[str, Any]) -> tuple[PreTrainedModel, ProcessorMixin]:
    if settings.wanted_latents or settings.latents not in (InterventionKind.own, InterventionKind.no_latents):
        raise CheckpointError(
            f"{settings.pretrained} is a plain checkpoint, which has no latents to think in or to replace. Evaluate it with "
            "num_latents=0, or make a STORM of it with `StormForConditionalGeneration.from_backbone`, and train it."
        )
    try:
        place = {"trust_remote_code": False, **place_of(settings.revision)}
        processor = AutoProcessor.from_pretrained(settings.pretrained, **place)
        model = AutoModelForImageTextToText.from_pretrained(settings.pretrained, **place, **loading)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{settings.pretrained} cannot be loaded: {first_line(error)}.") from error
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "video_processor", None) is None:
        raise CheckpointError(
            f"{settings.pretrained} reads no videos: it has no video processor. Evaluate a video-language checkpoint."
        )
    return model, processor
