from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from tests.thought_video.questions import question

from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import Rejected, RenderedChainGenerator
from storm_hf.thought_video.text_picture import draw_text, fitting_font, in_ascii
from storm_hf.worlds import ask, make_world


CHAIN = "The man walks in. He takes the red cup. He drinks from it. So the answer is B."


def rendered(chain=CHAIN, settings=None, **fields):
    asked = question(Path("clip.mp4"), chain_of_thought=chain, **fields)
    return RenderedChainGenerator(**(settings or {})).generate(asked, seed=7)


def test_every_step_is_a_picture_of_its_own():
    thought = rendered(license="CC-BY-4.0")
    assert thought.prompt.splitlines() == CHAIN.replace(". ", ".\n").splitlines()
    assert thought.frames.shape == (8, 224, 392, 3)
    pictures = thought.frames[::2]
    np.testing.assert_array_equal(pictures, thought.frames[1::2])
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert (thought.source, thought.license, thought.seed) == ("rendered_chain", "CC-BY-4.0", 7)


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (8, [8]), (9, [8]), (100, [8])])
def test_number_of_pictures_is_bounded_and_no_step_is_lost(count, sizes):
    steps = [f"Thing {number} moves." for number in range(count)]
    thought = rendered("\n".join(steps), {"frames_per_step": 1})
    assert [len(thought.frames)] == sizes
    assert thought.prompt.replace("\n", " ") == " ".join(steps)


def test_last_step_is_left_out_on_demand_and_the_revision_says_so():
    thought = rendered(settings={"keeps_last_step": False})
    assert "answer" not in thought.prompt
    assert len(thought.frames) == 6
    assert thought.generator_revision != rendered().generator_revision
    assert rendered("It is B.", {"keeps_last_step": False}).kind == "too short"


@pytest.mark.parametrize(
    ("chain", "kind"),
    [("", "no chain"), ("他走进来。他拿了杯子。", "illegible"), ("He walks in.\n😀\nHe sits.", "illegible")],
)
def test_chain_that_cannot_be_drawn_is_rejected(chain, kind):
    assert rendered(chain).kind == kind


def test_chain_that_does_not_fit_is_rejected_and_says_what_to_raise():
    outcome = rendered("word " * 3000)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("too long: ")
    assert "raise max_steps or frame_size" in outcome.reason


def test_accents_quotes_and_a_lone_symbol_do_not_cost_a_chain():
    assert in_ascii("“Café” — naïve → x") == ('"Cafe" - naive -> x', 0.0)
    assert rendered("He orders a café — “to go” he says to her with a smile 😀.").prompt.startswith(
        'He orders a cafe - "to'
    )


@pytest.mark.parametrize(
    ("written", "drawn"),
    [
        ("½ of 10² is 50.", "1/2 of 10^2 is 50."),
        ("2½ m", "2 1/2 m"),
        ("10²³ and 10⁻¹", "10^23 and 10^-1"),
        ("6 ÷ 2 − 1 = 2", "6 / 2 - 1 = 2"),
        ("5·4 ≠ 19 ± 1", "5*4 != 19 +/- 1"),
        ("It is 20°C.", "It is 20 degrees C."),
        ("the 1ª, 2 m™", "the 1a, 2 mTM"),
    ],
)
def test_numbers_keep_their_value(written, drawn):
    assert in_ascii(written) == (drawn, 0.0)


def test_text_stays_inside_of_the_picture_and_is_as_large_as_fits():
    texts = ["short", "a sentence of many words " * 20, "w" * 300]
    size_px = fitting_font(texts, (224, 392), 10, 24)
    assert fitting_font([texts[0]], (224, 392), 10, 24) == 24
    assert 10 <= size_px < 24
    for text in texts:
        picture = draw_text(text, (224, 392), size_px)
        border = np.concatenate(
            [picture[:2].ravel(), picture[-2:].ravel(), picture[:, :2].ravel(), picture[:, -2:].ravel()]
        )
        assert (border == 255).all()
        assert picture.min() < 100


def test_pictures_are_the_same_in_another_process(warm_python):
    code = (
        "from hashlib import sha256; from tests.thought_video.test_rendered_chain import rendered;"
        "print(sha256(rendered().frames.tobytes()).hexdigest())"
    )
    printed = warm_python.run(code, Path.cwd()).stdout
    assert printed.strip() == sha256(rendered().frames.tobytes()).hexdigest()


def test_spoken_chain_of_a_world_has_one_picture_a_step():
    world = make_world("shuffle", min_swaps=0)
    for seed in range(5):
        chain = ask(world, world.describe(seed), seed, "usual").spoken_chain
        assert len(rendered(chain, {"frame_size": (64, 256)}).prompt.splitlines()) == world.num_steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "`max_steps` must be a whole number of 1 or more, got 0"),
        ({"frame_size": (225, 392)}, "Expected frame_size as an even height and width of 30 or more"),
        ({"frame_size": (28, 392)}, "in which text of 10 px can be read"),
        ({"largest_font_px": 8}, "Expected largest_font_px of 10, the smallest, or more but got 8"),
    ],
)
def test_settings_that_draw_nothing_legible_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        RenderedChainGenerator(**settings)
