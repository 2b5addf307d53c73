"""Interventions on latents: one vocabulary, one record and one way to feed, for every command and test."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.interventions.intervention import Intervention, make_intervention
    from storm_hf.interventions.kind import InterventionKind
    from storm_hf.interventions.token_replacement import choose_donors, step_replacements, token_replacements

_MODULE_OF = {
    "Intervention": "storm_hf.interventions.intervention",
    "InterventionKind": "storm_hf.interventions.kind",
    "choose_donors": "storm_hf.interventions.token_replacement",
    "make_intervention": "storm_hf.interventions.intervention",
    "step_replacements": "storm_hf.interventions.token_replacement",
    "token_replacements": "storm_hf.interventions.token_replacement",
}

__all__ = [
    "Intervention",
    "InterventionKind",
    "choose_donors",
    "make_intervention",
    "step_replacements",
    "token_replacements",
]


__getattr__ = first_use(__name__, _MODULE_OF)
