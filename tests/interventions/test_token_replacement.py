import numpy as np
import pytest

from storm_hf.interventions.kind import CONTENT_FREE
from storm_hf.interventions.token_replacement import (
    choose_donors,
    shuffle_donors,
    step_replacements,
    token_replacements,
    usual_wording,
)


@pytest.fixture
def latents():
    """Latents (10 questions, 3 steps, 16)."""
    return np.random.default_rng(0).normal(size=(10, 3, 16)).astype(np.float32)


DONORS = np.roll(np.arange(10), 1)


def test_every_replacement_of_the_literature_has_a_name(latents):
    made = token_replacements(latents, DONORS)
    assert next(iter(made)) == "own"
    assert set(made) == {
        *CONTENT_FREE,
        "own",
        "noise_per_dataset_0.5",
        "noise_per_dataset_2",
        "first",
        "shuffled",
        "donor",
        "latents_only",
    }
    assert "oracle" in token_replacements(latents, DONORS, latents)


def test_what_is_fed_is_what_the_name_says(latents):
    made = token_replacements(latents, DONORS, targets=latents + 1)
    assert made["own"].fed is None
    np.testing.assert_array_equal(made["donor"].fed, latents[DONORS])
    np.testing.assert_array_equal(made["oracle"].fed, latents + 1)
    np.testing.assert_array_equal(made["shuffled"].fed, latents[made["shuffled"].donors])
    assert made["noise_per_dataset_2"].fed.std() == pytest.approx(2 * latents.std(), rel=0.15)
    assert len({intervention.label for intervention in made.values()}) == len(made)


def test_steps_are_replaced_alone_and_from_there_on(latents):
    made = step_replacements(latents, DONORS)
    steps = {name: list(intervention.steps) for name, intervention in made.items()}
    assert steps == {"only_0": [0], "only_1": [1], "only_2": [2], "from_0": [0, 1, 2], "from_1": [1, 2], "from_2": [2]}


@pytest.mark.parametrize("count", [2, 3, 50])
def test_shuffled_gives_nobody_its_own_and_leaves_nobody_out(count):
    for seed in range(10):
        others = shuffle_donors(count, seed)
        assert sorted(others) == list(range(count))
        assert (others != np.arange(count)).all()


QUESTIONS = ["where?"] * 4 + ["which?"] * 3 + ["when?"]
ANSWERS = ["red", "red", "blue", "green", "red", "blue", "blue", "red"]
ROWS = [{"question": question, "answer": answer} for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]


def test_donor_has_the_same_wording_and_another_answer():
    for seed in range(20):
        donors = choose_donors(ROWS, seed)
        for question, donor in enumerate(donors[:7]):
            assert QUESTIONS[donor] == QUESTIONS[question]
            assert ANSWERS[donor] != ANSWERS[question]


def test_donor_of_a_question_in_another_wording_is_the_one_of_the_usual_wording():
    asked = [
        {"question": f"{row['question']} {number}", "answer": f"It is {row['answer']}.", "options": []}
        | {"usual_question": row["question"], "outcome": row["answer"]}
        for number, row in enumerate(ROWS)
    ]
    assert choose_donors(asked).tolist() == choose_donors(ROWS).tolist()
    assert [usual_wording(row) for row in asked] == [usual_wording(row) for row in ROWS]


def test_question_without_a_donor_keeps_its_own_position():
    assert choose_donors(ROWS)[7] == 7


def test_donors_follow_their_seed():
    choices = [choose_donors(ROWS, seed).tolist() for seed in range(10)]
    assert choices == [choose_donors(ROWS, seed).tolist() for seed in range(10)]
    assert len({tuple(choice) for choice in choices}) > 1
