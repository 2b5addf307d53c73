"""Steps of plans that are run once for all commands that differ in the number of processes or in the GPU alone."""

import pytest

from storm_hf.planning import plan


_MEASURED = {}
_measure_step = plan.measure_step


@pytest.fixture(autouse=True, scope="module")
def each_step_is_measured_once():
    """`tests/planning/test_plan.py` shows that a step of the other stages is the same on any number of processes."""

    def measure_step(recipe, backbone, tokens, clip, sharing):
        num_processes = sharing.num_processes if recipe.stage == "grpo" else None
        key = repr((recipe.stage, recipe.arguments, recipe.backbone, tokens, clip, sharing.zero_stage, num_processes))
        if key not in _MEASURED:
            _MEASURED[key] = _measure_step(recipe, backbone, tokens, clip, sharing)
        return _MEASURED[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "measure_step", measure_step)
        yield
