"""Thought videos: clips that show the reasoning between a question and its answer, and their generators."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use
from storm_hf.thought_video.diffusers_generator import DiffusersSettings
from storm_hf.thought_video.duplicates import DuplicateGate, find_duplicates, perceptual_hash
from storm_hf.thought_video.evidence import EvidenceGenerator
from storm_hf.thought_video.films import FilmRecipe, FilmSplit
from storm_hf.thought_video.folder import FolderGenerator, file_stem, question_clip
from storm_hf.thought_video.future import FutureGenerator
from storm_hf.thought_video.generator import SimulatorGenerator, ThoughtVideoGenerator
from storm_hf.thought_video.prompt import ChatPrompt, PromptWriter, TemplatePrompt
from storm_hf.thought_video.quality import (
    Assessment,
    FirstFrameGate,
    Gate,
    QualityReport,
    SceneBreakGate,
    StaticGate,
    assess,
    judge,
)
from storm_hf.thought_video.record import AskedExample, Rejected, ThoughtExample, ThoughtVideo, WorldExample
from storm_hf.thought_video.rendered_chain import RenderedChainGenerator
from storm_hf.thought_video.segment_questions import SegmentQuestion, SegmentSettings
from storm_hf.thought_video.segments import SegmentsGenerator
from storm_hf.thought_video.stated_answer import StatedAnswerGate
from storm_hf.thought_video.video_families import FAMILIES, VideoFamily
from storm_hf.thought_video.visual_gain import (
    AnswerFreeGate,
    AnswerScorer,
    GainReport,
    GiveawayGate,
    VisualGainGate,
    visual_gain,
)
from storm_hf.thought_video.worlds_dataset import WorldRecipe, WorldSplit, render_world


if TYPE_CHECKING:
    from storm_hf.thought_video.diffusers_generator import DiffusersGenerator

_MODULE_OF = {
    "DiffusersGenerator": "storm_hf.thought_video.diffusers_generator",
}

__all__ = [
    "FAMILIES",
    "AnswerFreeGate",
    "AnswerScorer",
    "AskedExample",
    "Assessment",
    "ChatPrompt",
    "DiffusersGenerator",
    "DiffusersSettings",
    "DuplicateGate",
    "EvidenceGenerator",
    "FilmRecipe",
    "FilmSplit",
    "FirstFrameGate",
    "FolderGenerator",
    "FutureGenerator",
    "GainReport",
    "Gate",
    "GiveawayGate",
    "PromptWriter",
    "QualityReport",
    "Rejected",
    "RenderedChainGenerator",
    "SceneBreakGate",
    "SegmentQuestion",
    "SegmentSettings",
    "SegmentsGenerator",
    "SimulatorGenerator",
    "StatedAnswerGate",
    "StaticGate",
    "TemplatePrompt",
    "ThoughtExample",
    "ThoughtVideo",
    "ThoughtVideoGenerator",
    "VideoFamily",
    "VisualGainGate",
    "WorldExample",
    "WorldRecipe",
    "WorldSplit",
    "assess",
    "file_stem",
    "find_duplicates",
    "judge",
    "perceptual_hash",
    "question_clip",
    "render_world",
    "visual_gain",
]

__getattr__ = first_use(__name__, _MODULE_OF)
