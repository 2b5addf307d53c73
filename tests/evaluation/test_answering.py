import pytest
from tests.diagnostics.thinker import NUM_LATENTS, saying

from storm_hf.evaluation.answering import Answer, accuracy, answer_questions, read_option


OPTIONS = ("red", "green", "blue", "yellow")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("red", "red"),
        ("the ball is at blue.", "blue"),
        ("red green blue", "blue"),
        ("red .", "red"),
        ("blue or", None),
        ("Red", None),
        ("redder", None),
        ("", None),
        (" . ", None),
    ],
)
def test_last_word_is_the_answer_if_it_is_an_option(text, choice):
    assert read_option(text, OPTIONS) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("It is the left cup.", "the left cup"), ("cup", "cup"), ("the right cup", "cup"), ("the left", None)],
)
def test_option_of_several_words_is_read_whole(text, choice):
    assert read_option(text, ["cup", "the left cup"]) == choice


@pytest.mark.parametrize(("text", "choice"), [("B", "green"), ("It is C.", "blue"), ("E", None), ("green", None)])
def test_letter_is_read_as_its_option(text, choice):
    assert read_option(text, OPTIONS, "letters") == choice


def test_answer_to_an_open_question_names_no_option():
    assert read_option("red", None) is None


def test_answers_hold_text_choice_latents_and_tokens(thinker):
    with saying(thinker, "ball at red"):
        answers = thinker.answer()
    tokenizer = thinker.processor.tokenizer
    for answer in answers:
        assert (answer.text, answer.choice) == ("ball at red", "red")
        assert answer.latents.shape == (NUM_LATENTS, 128)
        assert answer.token_ids == [*tokenizer("ball at red")["input_ids"], tokenizer.eos_token_id]


def test_model_that_does_not_think_has_no_latents(thinker):
    answers = answer_questions(thinker.model, thinker.prompts(0), thinker.rows)
    assert [answer.latents for answer in answers] == [None] * 3


def test_padding_behind_an_answer_that_ends_early_is_not_part_of_it(thinker):
    """In one batch, the first row ends at once and the others go on to the limit."""
    tokenizer = thinker.processor.tokenizer
    red = tokenizer("red")["input_ids"][0]

    def end_first_row(module, inputs, logits):
        said = logits.new_full(logits.shape, -100.0)
        said[..., red] = 100.0
        said[0, :, red], said[0, :, tokenizer.eos_token_id] = -100.0, 100.0
        return said

    hook = thinker.model.get_output_embeddings().register_forward_hook(end_first_row)
    answers = thinker.answer(max_new_tokens=3)
    hook.remove()
    assert [answer.token_ids for answer in answers] == [[tokenizer.eos_token_id], [red] * 3, [red] * 3]


def test_progress_counts_every_answer(thinker):
    done = []
    thinker.answer(batch_size=2, on_batch=done.append)
    assert done == [2, 1]


def test_unreadable_answer_is_wrong():
    answers = [Answer("red", "red", None, [1]), Answer("cup", None, None, [1]), Answer("blue", "blue", None, [1])]
    rows = [{"answer": "red"}, {"answer": "red"}, {"answer": "green"}]
    assert accuracy(answers, rows) == pytest.approx(1 / 3)
