"""Record of a diagnosis: `diagnosis.json`, field for field."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storm_hf.diagnostics.geometry import LayerAttention, StepDrift, StepGeometry, StepProbe, StepRetrieval
from storm_hf.diagnostics.halting import HaltedThoughts
from storm_hf.diagnostics.intervention_effects import CounterfactualEffect, DonorQuestionEffect, Effect
from storm_hf.diagnostics.verdict import THRESHOLDS, Verdict


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Use and content of a model's latents. Values that could not be measured are None, with a reason in `absent`.

    Args:
        model (`str`):
            The checkpoint.
        dataset (`str`):
            The data set.
        split (`str`):
            Its part.
        seed (`int`):
            Of draws and bootstrap.
        num_questions (`int`):
            Questions asked.
        num_clips (`int`):
            Different clips that they are about. Intervals draw clips, not questions.
        num_latents (`int`):
            Number K of latent steps.
        chance (`float`, *optional*):
            Accuracy of guessing among the options; None for open questions.
        verdict ([`Verdict`]):
            The outcome in a sentence.
        effects (`Mapping[str, Effect]`):
            The token replacement test: from an intervention to what it does. `own` replaces nothing.
        only_step (`list[Effect]`):
            Another clip's latent in this step alone.
        from_step (`list[Effect]`):
            Another clip's latents from this step on.
        donor_question ([`DonorQuestionEffect`], *optional*):
            Another clip's latents and its question.
        geometry (`list[StepGeometry]`):
            Of the latents, step by step.
        counterfactuals (`list[CounterfactualEffect]`, *optional*):
            Edits of single steps against the simulator; a step whose edit changes no answer is left out.
        retrieval (`list[StepRetrieval]`, *optional*):
            Retrieval of the latents' thoughts.
        target_geometry (`list[StepGeometry]`, *optional*):
            Of the true thoughts.
        drift (`list[StepDrift]`, *optional*):
            Free rollout against the one fed with true thoughts.
        probes (`list[StepProbe]`, *optional*):
            Linear probes of the state.
        attention (`list[LayerAttention]`, *optional*):
            Layer by layer.
        num_attended (`int`):
            Questions that attention was measured on.
        halting ([`HaltedThoughts`], *optional*):
            Thoughts that end by themselves, of a model with a halting head. All else is measured on thoughts of K steps.
        absent (`Mapping[str, str]`):
            From what is None to the reason.
        seconds (`float`):
            Wall time.
        command (`str`):
            Command that reproduces it.
    """

    model: str
    dataset: str
    split: str
    seed: int
    num_questions: int
    num_clips: int
    num_latents: int
    chance: float | None
    verdict: Verdict
    effects: Mapping[str, Effect]
    only_step: list[Effect]
    from_step: list[Effect]
    donor_question: DonorQuestionEffect | None
    geometry: list[StepGeometry]
    counterfactuals: list[CounterfactualEffect] | None
    retrieval: list[StepRetrieval] | None
    target_geometry: list[StepGeometry] | None
    drift: list[StepDrift] | None
    probes: list[StepProbe] | None
    attention: list[LayerAttention] | None
    num_attended: int
    halting: HaltedThoughts | None = None
    absent: Mapping[str, str]
    seconds: float
    command: str

    def to_json(self) -> str:
        """Write everything as JSON, in the order of the fields, with the thresholds of the verdict."""
        values: dict[str, Any] = asdict(self)
        values["verdict"] = {"headline": self.verdict.headline, **values["verdict"], "thresholds": THRESHOLDS}
        return json.dumps(_finite(values), indent=2, allow_nan=False) + "\n"


def _finite(value: object) -> Any:
    """Numbers that are none, as the spread of a single clip, become null."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
