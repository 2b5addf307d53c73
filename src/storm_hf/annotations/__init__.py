"""Annotations from anywhere: questions about clips, read row by row, and every bad row with its reason."""

from storm_hf.annotations.layout import Layout, known_layouts, load_layout
from storm_hf.annotations.read import read_annotations
from storm_hf.annotations.record import Annotation, Box, KeyFrame, Rejection, write_rejections
from storm_hf.annotations.source import SourceConfig


__all__ = [
    "Annotation",
    "Box",
    "KeyFrame",
    "Layout",
    "Rejection",
    "SourceConfig",
    "known_layouts",
    "load_layout",
    "read_annotations",
    "write_rejections",
]
