"""Gradio page of a checkpoint: questions about clips, and its latents shown and changed."""

from storm_hf.app.examples import Examples
from storm_hf.app.handlers import PageHandlers
from storm_hf.app.page import build_page, run_page
from storm_hf.app.session import InterventionAnswer, Reply, Session, Thinking


__all__ = ["Examples", "InterventionAnswer", "PageHandlers", "Reply", "Session", "Thinking", "build_page", "run_page"]
