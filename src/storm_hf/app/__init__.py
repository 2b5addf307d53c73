"""A page on which a checkpoint is asked about clips, and its thoughts are looked at and changed."""

from storm_hf.app.desk import Desk
from storm_hf.app.examples import Examples
from storm_hf.app.page import build_page
from storm_hf.app.replies import Reply, Rethinking, Thinking
from storm_hf.app.run import run_page
from storm_hf.app.session import Session


__all__ = ["Desk", "Examples", "Reply", "Rethinking", "Session", "Thinking", "build_page", "run_page"]
