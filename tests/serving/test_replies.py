"""Bodies of replies that only models of some kind give."""

import json

from storm_hf.serving.chat import Choice
from storm_hf.serving.replies import Completion


COMPLETION = Completion("1", "storm", num_prompt_tokens=3)


def last_chunk(choice):
    return json.loads(COMPLETION.ends([choice]).split(b"\n\n")[0].removeprefix(b"data: "))["choices"][0]


def test_model_that_halts_tells_how_long_it_thought():
    choice = Choice("blue", 1, "stop", num_latents=3)
    assert COMPLETION.complete([choice])["choices"][0]["num_latents"] == 3
    assert last_chunk(choice)["num_latents"] == 3


def test_model_without_a_halting_head_says_nothing_of_it():
    choice = Choice("blue", 1, "stop")
    assert "num_latents" not in COMPLETION.complete([choice])["choices"][0]
    assert "num_latents" not in last_chunk(choice)
