"""Order of the stages, and refused plans."""

import pytest
import yaml

from storm_hf.curriculum.schedule import CurriculumStage, StormCurriculum
from storm_hf.errors import ConfigurationError


def plan(curriculum):
    return [(stage.kind, stage.num_latents, stage.num_replaced) for stage in curriculum.stages]


def test_two_stages_are_those_of_the_paper():
    assert plan(StormCurriculum.two_stages()) == [("align", None, None), ("answer", None, None)]
    assert plan(StormCurriculum.two_stages(6)) == [("align", 6, None), ("answer", 6, None)]


def test_growing_aligns_with_more_and_more_latents_and_answers_with_the_most():
    assert plan(StormCurriculum.growing([2, 4, 8])) == [
        ("align", 2, None),
        ("align", 4, None),
        ("align", 8, None),
        ("answer", 8, None),
    ]


def test_coconut_begins_with_the_whole_chain_and_ends_with_latents_alone():
    assert plan(StormCurriculum.coconut(num_steps=3, latents_per_step=2)) == [
        ("answer", 0, 0),
        ("answer", 2, 1),
        ("answer", 4, 2),
        ("answer", 6, None),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: two_stages", StormCurriculum.two_stages()),
        ("stages: {two_stages: {num_latents: 4}}", StormCurriculum.two_stages(4)),
        ("stages: {growing: {num_latents: [1, 3]}}", StormCurriculum.growing([1, 3])),
        (
            "stages: {coconut: {num_steps: 2, latents_per_step: 3, reasoning_column: terse_chain}}",
            StormCurriculum.coconut(2, 3, "terse_chain"),
        ),
        (
            "{stages: [{kind: base}, {kind: answer, num_latents: 3, num_replaced: 1}], reasoning_column: steps}",
            StormCurriculum((CurriculumStage("base"), CurriculumStage("answer", 3, 1)), "steps"),
        ),
    ],
)
def test_curriculum_is_read_from_yaml(text, expected):
    assert StormCurriculum.from_dict(yaml.safe_load(text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{}",
            "`stages` must be a list of stages or one of two_stages, growing, coconut with its arguments, got None",
        ),
        ("stages: []", "at least one stage"),
        ("stages: cocnut", "got 'cocnut'"),
        ("stages: {growing: {num_latents: [2]}, coconut: {num_steps: 2}}", "`stages` must be a list"),
        ("stages: [align]", "Expected a stage as a mapping but got 'align'"),
        ("stages: [{kind: stage_one}]", "must be one of base, align, answer, grpo, got 'stage_one'"),
        (
            "stages: [{kind: align, latents: 4}]",
            "the settings kind, num_latents, num_replaced in a stage but got latents",
        ),
        ("stages: [{kind: answer, num_latents: -1}]", "`num_latents` must be a whole number of 0 or more, got -1"),
        ("stages: [{kind: answer, num_latents: true}]", "`num_latents` must be a whole number of 0 or more, got True"),
        ("stages: [{kind: answer, num_replaced: 1.5}]", "`num_replaced` must be a whole number of 0 or more, got 1.5"),
        ("stages: [{kind: align, num_latents: 0}]", "needs `num_latents` of 1 or more, got 0"),
        ("stages: [{kind: align, num_replaced: 2}]", "Only an answer stage writes a chain of thought"),
        ("stages: [{kind: base, num_latents: 2}]", "learns to see and has no latents, got `num_latents: 2`"),
        ("stages: [{kind: align}, {kind: base}]", "must be the first"),
        ("stages: {growing: {}}", "The schedule growing needs num_latents"),
        ("stages: {growing: {num_latents: [2, 2]}}", r"must grow from 1 or more, as \[2, 4, 8\] does, got \[2, 2\]"),
        ("stages: {growing: {num_latents: [0, 2]}}", "must grow from 1 or more"),
        ("stages: {growing: {num_latents: 8}}", "must be a list of values, each a whole number, got 8"),
        ("stages: {growing: {num_latents: []}}", "must grow from 1 or more, as .* does, got"),
        ("stages: {coconut: {num_steps: 0}}", "`num_steps` must be a whole number of 1 or more, got 0"),
        ("stages: {coconut: {num_steps: 2, c: 2}}", "reasoning_column in the schedule coconut but got c"),
        ("stages: {coconut: {num_steps: 2, latents_per_step: 0}}", "`latents_per_step` must be a whole number of 1"),
        ("{stages: two_stages, reasoning_column: steps}", "stands beside a list of stages"),
        ("{stages: [{kind: align}], reasoning_column: 3}", "`reasoning_column` must be text that is not empty, got 3"),
        ("{stages: [{kind: align}], seed: 3}", "the settings stages, reasoning_column in a curriculum but got seed"),
    ],
)
def test_plan_that_cannot_be_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        StormCurriculum.from_dict(yaml.safe_load(text))
