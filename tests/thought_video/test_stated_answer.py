from pathlib import Path

import pytest
from tests.thought_video.questions import question

from storm_hf.thought_video import RenderedChainGenerator, StatedAnswerGate


OPTIONS = {"options": ("a red cup", "tea"), "answer": "tea"}


def checked(chain, **fields):
    asked = question(Path("clip.mp4"), chain_of_thought=chain, **{**OPTIONS, **fields})
    return StatedAnswerGate().check(asked, RenderedChainGenerator().generate(asked, seed=0))


@pytest.mark.parametrize(
    "statement",
    [
        "So the answer is B.",
        "So it must be option (B), I think.",
        "The correct answer: tea.",
        "The answer should be Tea",
    ],
)
def test_statement_of_the_answer_is_found_wherever_it_stands(statement):
    for chain in (f"He walks in.\n{statement}\nHe sits.", f"{statement}\nHe sits."):
        reason = checked(chain)
        assert reason.startswith("stated answer: picture ")
        assert statement[:20] in reason


@pytest.mark.parametrize(
    "chain",
    [
        "He pours tea into the cup.",
        "The answer needs a look at the cup. He pours tea.",
        "The answer is not A.",
        "The options are team and B-roll.",
        "Be careful: a beam falls.",
    ],
)
def test_step_that_only_mentions_the_answer_passes(chain):
    assert checked(chain) is None


def test_english_article_is_no_option():
    assert checked("The answer is A man walking in the end.", options=("walk", "run"), answer="walk") is None
    assert checked("The answer is A.", options=("walk", "run"), answer="walk") is not None
