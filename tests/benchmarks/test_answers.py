from functools import partial
from xml.etree import ElementTree

import pytest
from answer_ways import Answer, Request, Way, all_ways, random_prompt, storm
from answers import (
    DIRECT,
    FIRST,
    REFERENCES,
    SLOW,
    STORM,
    Cell,
    chart,
    check,
    chosen_ways,
    load,
    measure,
    replace_section,
    report,
    save,
)

from storm_hf.errors import StageError


PREFILL, STEP, ANSWER = 1.0, 0.1, 8
KNOWN = {"machine": "a processor", "date": "2026-11-30", "torch": "2", "transformers": "5"}


def cell(**seconds: list[float]) -> Cell:
    """A cell whose latent steps cost 1.05 decoding steps."""
    direct = PREFILL + (ANSWER - 1) * STEP
    known = {
        FIRST: [PREFILL] * 2,
        DIRECT: [direct] * 2,
        "direct": [direct] * 2,
        STORM: [direct + 9 * 1.05 * STEP] * 2,
        "text 32": [direct + 32 * STEP] * 2,
    }
    return Cell("tiny", "float32", 64, 1, "dynamic", ANSWER, {**known, **seconds})


def test_latent_step_and_bound_are_those_of_the_seconds():
    assert cell().latent_step() == "1.05 (1.05 to 1.05)"
    assert cell().bound() == pytest.approx(1 + 1.1 * 9 * STEP / PREFILL)


def test_further_latent_is_compared_with_a_further_token_whatever_the_first_ones_cost():
    dearer = cell(
        **{STORM: [3 + 8 * STEP] * 2, "STORM K=16": [3 + 16 * STEP] * 2},
        **{"text 32": [5 + 32 * 2 * STEP] * 2, "text 128": [5 + 128 * 2 * STEP] * 2},
    )
    assert dearer.further_latent() == "0.500 (0.500 to 0.500)"


def test_ratio_is_taken_within_a_round():
    slow_machine = cell(**{"direct": [1.0, 10.0], STORM: [2.0, 20.0]})
    assert slow_machine.ratio(STORM, "direct") == "2.00 (2.00 to 2.00)"


def test_what_was_left_out_is_a_dash():
    partial_cell = Cell("tiny", "float32", 64, 1, "dynamic", ANSWER, {name: [1.0] for name in REFERENCES})
    assert partial_cell.latent_step() == partial_cell.further_latent() == partial_cell.ratio("STORM K=16", SLOW) == "-"
    assert "| - |" in report(KNOWN, [partial_cell])


def test_references_are_never_left_out():
    names = [way.name for way in chosen_ways(["direct", "first", "text", "recompute"])]
    assert set(REFERENCES) < set(names)
    assert not any(name.startswith(("text", "recompute")) for name in names)
    assert len(chosen_ways([])) == len(all_ways())


def test_way_that_thinks_otherwise_is_refused(tiny):
    def louder(model, request):
        found = storm(model, request, 8)
        return Answer(found.tokens, 1.001 * found.latents)

    request = Request(random_prompt(tiny, 1, 16), 2)
    with pytest.raises(StageError, match="louder"):
        check([Way("louder", louder, 8)], tiny, request)


def test_way_that_answers_otherwise_is_refused(tiny):
    def other(model, request):
        found = storm(model, request, 8)
        return Answer(found.tokens + 1, found.latents)

    with pytest.raises(StageError, match="another answer"):
        check([Way("other", other, 8)], tiny, Request(random_prompt(tiny, 1, 16), 2))


def test_all_ways_take_turns_and_the_file_keeps_their_seconds(tiny, tmp_path):
    calls = []

    def called(name, method, *arguments):
        calls.append(name)
        return method(*arguments)

    ways = [Way(name, partial(called, name, way.answer)) for name, way in all_ways().items() if name in REFERENCES]
    measured = Cell("tiny", "float32", 16, 2, "dynamic", 3)
    measure(measured, tiny, ways, rounds=2)
    names = [way.name for way in ways]
    assert calls == names * 3  # once to warm up
    assert {name: len(seconds) for name, seconds in measured.seconds.items()} == dict.fromkeys(names, 2)
    save(tmp_path / "answers.json", KNOWN, [measured])
    assert load(tmp_path / "answers.json") == (KNOWN, [measured])


def test_chart_shows_every_way():
    drawn = chart(cell())
    ElementTree.fromstring(drawn)
    assert all(name in drawn for name in cell().seconds)


def test_section_is_replaced_up_to_the_next_heading():
    text = "# A\n\n### Here\n\nold\n\n## B\n\nkept\n"
    assert replace_section(text, "### Here", "new\n") == "# A\n\n### Here\n\nnew\n\n## B\n\nkept\n"
    with pytest.raises(StageError, match="### There"):
        replace_section(text, "### There", "new\n")
