import json
from urllib.request import Request, urlopen

from storm_hf.evaluation.harness.task_process import VERDICT, without_judge


def test_judge_answers_at_once_that_it_did_not_judge():
    with without_judge() as environment:
        for path in ("", "/chat/completions"):  # TempCompass posts to the address itself, openai's client below it
            request = Request(environment["OPENAI_API_URL"] + path, data=b'{"model": "gpt"}', method="POST")
            with urlopen(request, timeout=10) as response:
                assert json.load(response)["choices"][0]["message"]["content"] == VERDICT


def test_verdict_is_read_as_incorrect_by_every_task():
    assert VERDICT.startswith("Incorrect")
    assert not any(f"{letter}." in VERDICT for letter in "ABCD")  # TempCompass counts these in the answer of a caption
