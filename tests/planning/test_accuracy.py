"""Plans against what steps of small models really hold, keep and use at most."""

import pytest
from benchmarks.plan_accuracy import Case, measure, plan


pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TOLERANCE = 0.03
FAST = [
    Case(stage="I"),
    Case(stage="II"),
    Case(stage="II", is_checkpointed=True),
    Case(stage="II", has_adapter=True),  # frozen weights are cast once
    Case(stage="II jacobi_sweeps=2", is_checkpointed=True),
    Case(kind="qwen3_vl", stage="I", has_clip=True),
]
SLOW = [
    Case(stage="I", is_checkpointed=True),
    Case(kind="qwen3_vl", numbers="float32", stage="I"),
    Case(kind="qwen3_vl", numbers="float32", stage="II", is_checkpointed=True),
    Case(kind="qwen3_vl", numbers="bf16 weights", stage="II"),
    Case(stage="II detach_prompt"),
    Case(stage="II truncate_steps=2"),
    Case(numbers="bf16 weights", stage="I", has_adapter=True),
    Case(numbers="bf16 weights", stage="II", is_checkpointed=True, has_adapter=True),
    Case(stage="II", is_checkpointed=True, accumulation=2),
    Case(kind="qwen3_vl", numbers="bf16 weights", stage="II", is_checkpointed=True),
    Case(stage="II", has_clip=True),
    Case(kind="qwen3_vl", stage="I", is_checkpointed=True, has_clip=True, has_bottleneck=True),
]


@pytest.mark.parametrize("case", [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)], ids=str)
def test_plan_is_what_a_step_takes(case):
    planned, real = plan(case), measure(case)
    assert (planned.weights, planned.optimizer) == (real.weights, real.optimizer)
    assert planned.kept == pytest.approx(real.kept, rel=TOLERANCE)
    assert planned.peak == pytest.approx(real.peak, rel=TOLERANCE)
