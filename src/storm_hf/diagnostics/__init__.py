"""Do the latents matter? The same loop as generation, looked at through its one seam."""

from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.monitor import LatentMonitor
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.diagnostics.questions import Questions, read_questions
from storm_hf.diagnostics.record import Diagnosis
from storm_hf.diagnostics.replacement import feed, replacement
from storm_hf.diagnostics.retrieval import Neighbours, ThoughtGallery


__all__ = [
    "Diagnosis",
    "LatentMonitor",
    "Neighbours",
    "Questions",
    "ThoughtGallery",
    "diagnose",
    "feed",
    "read_questions",
    "replacement",
    "write_diagnosis",
]
