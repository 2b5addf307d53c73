"""Diagnostics of the latents: the same loop as generation, observed through its one seam."""

from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.monitor import LatentMonitor
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.diagnostics.questions import Questions, read_questions
from storm_hf.diagnostics.record import Diagnosis
from storm_hf.evaluation.thought_gallery import Neighbours, ThoughtGallery
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.interventions.token_replacement import choose_donors


__all__ = [
    "Diagnosis",
    "Intervention",
    "InterventionKind",
    "LatentMonitor",
    "Neighbours",
    "Questions",
    "ThoughtGallery",
    "choose_donors",
    "diagnose",
    "make_intervention",
    "read_questions",
    "write_diagnosis",
]
