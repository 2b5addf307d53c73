import pytest
from tests.diagnostics.thinker import NUM_LATENTS, make_thinker, saying

from storm_hf.evaluation.answering import (
    Answer,
    accuracy,
    answer_questions,
    measure_cost,
    read_option,
    tokens_before_answer,
)


OPTIONS = ("red", "green", "blue", "yellow")
CHAIN = "step one swap red green , ball at green . green"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    return make_thinker(tmp_path_factory.mktemp("clips"), num_rows=3)


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


def answer_in(thinker, text, choice):
    tokenizer = thinker.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Answer(text, choice, None, [*ids, tokenizer.eos_token_id])


@pytest.mark.parametrize(
    ("text", "choice", "expected"),
    [
        ("red", "red", 0),
        ("blue red green", "green", 2),
        (CHAIN, "green", 10),
        ("ball at red.", "red", 2),
        ("ball at cup", None, 2),
    ],
)
def test_reasoning_is_what_comes_before_the_answer_word(thinker, text, choice, expected):
    assert tokens_before_answer(answer_in(thinker, text, choice), thinker.processor) == expected


def test_answer_word_of_several_tokens_begins_at_its_first(thinker):
    answer = answer_in(thinker, "ball at Kraków", "Kraków")
    first = answer.token_ids.index(*thinker.processor.tokenizer("K")["input_ids"])
    assert len(answer.token_ids) > first + 2
    assert tokens_before_answer(answer, thinker.processor) == first


@pytest.mark.parametrize(
    ("num_latents", "said", "passes"),
    [
        (0, "red", 1),
        (NUM_LATENTS, "red", NUM_LATENTS + 2),
        (2, "red", 4),
        (0, CHAIN, 1 + 10),
        (NUM_LATENTS, "at red", NUM_LATENTS + 3),
    ],
)
def test_cost_counts_forward_passes_up_to_the_first_token_of_the_answer(thinker, num_latents, said, passes):
    with saying(thinker, said):
        cost = measure_cost(thinker.model, thinker.prompts(num_latents), thinker.rows, max_new_tokens=20)
    assert cost.forward_passes == passes
    assert cost.seconds > 0


def test_cost_of_an_answer_without_a_word_is_counted(thinker):
    """An untrained model may say nothing but padding, or end at once."""
    pad = thinker.processor.tokenizer.pad_token
    for said in ("", pad * 4):
        with saying(thinker, said):
            assert measure_cost(thinker.model, thinker.prompts(0), thinker.rows, max_new_tokens=4).forward_passes == 1


def test_measuring_leaves_the_model_as_it_was(thinker):
    with saying(thinker, "red"):
        measure_cost(thinker.model, thinker.prompts(), thinker.rows)
    assert not thinker.model.get_decoder()._forward_hooks


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
