import pytest
from tests.diagnostics.thinker import NUM_LATENTS, saying

from storm_hf.evaluation.batch import (
    Answer,
    accuracy,
    answer_questions,
    expected_choice,
    read_option,
    read_outcome,
    read_reply,
)


OPTIONS = ("red", "green", "blue", "yellow")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("red", "red"),
        ("the ball is at blue.", "blue"),
        ("red green blue", "blue"),
        ("red .", "red"),
        ("blue or", None),
        ("Red", "red"),
        ("**Red**", "red"),
        (r"\boxed{\text{Red}}", "red"),
        ("<answer>red</answer>", "red"),
        ("<think>blue</think> Red.", "red"),
        ("red</s>", "red"),
        ("The answer is red", "red"),
        ("not green but blue", "blue"),
        ("not red", None),
        ("It is not the red.", None),
        ("It isn't at red", None),
        ("It isn’t red", None),
        ("red or Blue", None),
        ("Either red or green.", None),
        ("red and blue", None),
        ("red, blue", None),
        ("red/blue", None),
        ("B", None),
        ("redder", None),
        ("", None),
        (" . ", None),
    ],
)
def test_answer_in_words_is_the_option_that_it_ends_with_and_does_not_deny(text, choice):
    assert read_option(text, OPTIONS) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("It is the left cup.", "the left cup"), ("cup", "cup"), ("the right cup", "cup"), ("the left", None)],
)
def test_option_of_several_words_is_read_whole(text, choice):
    assert read_option(text, ["cup", "the left cup"]) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", "green"),
        ("b", "green"),
        ("(B)", "green"),
        ("B)", "green"),
        ("B. green", "green"),
        ("**B**", "green"),
        ("It is C.", "blue"),
        ("A man walks. C", "blue"),
        ("The correct answer is b.", "green"),
        ("The answer is a.", "red"),
        (r"$\boxed{\text{B}}$", "green"),
        ("green", "green"),
        ("The answer is Green", "green"),
        ("E", None),
        ("B. blue", None),
        ("A or B", None),
        ("A, B", None),
        ("not B", None),
        ("The answer is a", None),  # of "a man", cut off
        ("I see a", None),
        ("green or blue", None),
    ],
)
def test_answer_in_letters_is_read_by_its_letter_or_its_text(text, choice):
    assert read_option(text, OPTIONS, "letters") == choice


def test_options_that_differ_in_case_are_told_apart_or_not_read():
    assert [read_option(text, ("Red", "red")) for text in ("red", "so Red", "RED")] == ["red", "Red", None]


def test_letters_go_on_behind_the_tenth_option():
    assert read_option("(L)", [f"{count} times" for count in range(12)], "letters") == "11 times"


@pytest.mark.parametrize(
    ("answer", "options", "choice"),
    [
        ("red", OPTIONS, "red"),
        ("first green then Red.", OPTIONS, "red"),
        ("a man", None, "a man"),
        ("x or y", ("x", "x or y"), "x or y"),
    ],
)
def test_correct_answer_of_a_row_is_read_as_answers_are(answer, options, choice):
    assert expected_choice({"answer": answer, "options": options}) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The ball is under the red cup.", "red"),
        ("the RED cup holds it", "red"),
        ("It is red", "red"),
        ("I saw red first. It ends up on the blue pad.", "blue"),
        ("The blue cup holds the ball. It is there since the third step.", "blue"),
        ("red green blue The ball is under the yellow cup.", "yellow"),
        ("step one swap red blue , ball at red . The blue cup holds the ball.", "blue"),
        ("The ball is under the Red Cup", "red"),
        ("The Red Cup and not the Blue Cup", None),
        ("It is red or Maybe blue, who knows", None),
        ("The ball is not under the red cup.", None),
        ("It isn't the red cup.", None),
        ("The ball is under the red or the blue cup.", None),
        ("The red cup, not the blue one.", None),
        ("red/blue cup", None),
        ("The reddish cup.", None),
        ("The ball is under that cup.", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("style", ["none", "words", "letters"])
def test_reply_in_a_sentence_names_the_choice_that_it_speaks_of(text, choice, style):
    assert read_outcome(text, OPTIONS, style) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", "green"),
        ("b", "green"),
        ("B.", "green"),
        ("b) green", "green"),
        ("The answer is B.", "green"),
        ("B. red", None),
        ("A or B", None),
        ("E", None),
        ("A. red\nB. green", None),
        ("It stays on red, then it moves to green. B. green", "green"),
        ("red blue red green (B) green", "green"),
        ("red blue b) green", None),  # a small letter is one in parentheses
        ("It moves to red. B. red", None),
        ("It is not B. green", None),
        ("It is A or B. green", None),
        ("It is red or B) green", None),
    ],
)
def test_reply_with_a_letter_names_the_choice_under_it(text, choice):
    assert read_outcome(text, OPTIONS, "letters") == choice


def test_letter_names_nothing_where_choices_have_none():
    assert read_outcome("B", OPTIONS, "words") is None


def test_compass_point_is_not_read_into_a_longer_one():
    assert read_outcome("It is on the northwest field.", ["north", "west", "northwest"], "none") == "northwest"


ASKED = {"answer": "It is red.", "options": [], "choices": list(OPTIONS), "choice_style": "none", "outcome": "red"}


def test_row_with_a_complete_question_is_read_by_its_choices():
    assert read_reply("The blue cup holds it.", ASKED, "letters") == "blue"
    assert read_reply("B", ASKED, "letters") is None
    assert read_reply("A", {**ASKED, "choice_style": "letters"}, "none") == "red"
    assert expected_choice(ASKED) == "red"


def test_row_with_options_is_read_in_the_style_of_its_prompt():
    row = {**ASKED, "options": list(OPTIONS)}
    assert [read_reply("B", row, style) for style in ("letters", "words")] == ["green", None]
    assert read_reply("The blue cup holds it.", row, "words") is None


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
