"""A run of stages, with scripts that write a checkpoint and train nothing: what is done, repeated, refused and reported."""

import json
import shutil

import pytest
import yaml

from storm_hf.curriculum.launch import Ending
from storm_hf.curriculum.recipe import RunRecipe
from storm_hf.curriculum.run import StagedRun
from storm_hf.errors import ConfigurationError, StageError, StaleWorkError


class FakeLaunch:
    """Writes the checkpoint that a script would leave, and remembers what it was asked for."""

    def __init__(self, endings=None, steps=None):
        self.calls, self.endings, self.steps = [], endings or {}, steps or {}

    def __call__(self, kind, config, log):
        arguments = yaml.safe_load(config.read_text())
        self.calls.append((kind, arguments))
        name = config.parent.name
        step = self.steps.get(name, 4)
        checkpoint = config.parent / f"checkpoint-{step}"
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 4}))
        return self.endings.get(name, Ending(0))

    @property
    def kinds(self):
        return [kind for kind, _ in self.calls]


def recipe(folder, **content):
    settings = {"model_name_or_path": "base", "output_dir": str(folder), "stages": "two_stages"}
    return RunRecipe.from_dict({**settings, **content})


def run(folder, launch, tell=lambda sentence: None, **content):
    return StagedRun(recipe(folder, **content), launch, tell, patience_seconds=0).run()


def test_each_stage_starts_from_the_one_before(tmp_path):
    launch = FakeLaunch()
    assert run(tmp_path, launch, seed=3) == tmp_path / "2-answer"
    (align, of_align), (answer, of_answer) = launch.calls
    assert (align, answer) == ("align", "answer")
    assert of_align == {
        "seed": 3,
        "model_name_or_path": "base",
        "output_dir": str(tmp_path / "1-align"),
        "resume_from_checkpoint": "true",
    }
    assert of_answer["model_name_or_path"] == str(tmp_path / "1-align")
    assert of_answer["output_dir"] == str(tmp_path / "2-answer")


WITH_GRPO = [{"kind": "align"}, {"kind": "answer"}, {"kind": "grpo"}]


def test_reinforcement_goes_on_from_stage_two_with_noise_in_the_directions_of_stage_one(tmp_path):
    launch = FakeLaunch()
    assert run(tmp_path, launch, stages=WITH_GRPO, grpo={"donor_share": 0.5}) == tmp_path / "3-grpo"
    kind, arguments = launch.calls[-1]
    assert (kind, arguments["model_name_or_path"]) == ("grpo", str(tmp_path / "2-answer"))
    assert (arguments["donor_share"], arguments["latent_subspace"]) == (0.5, str(tmp_path / "1-align"))
    assert "latent_subspace" not in launch.calls[0][1] | launch.calls[1][1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"latent_subspace": "mine"}, "mine"), ({"estimator": "score"}, None), ({"estimator": "pathwise"}, "1-align")],
)
def test_directions_of_the_noise_are_those_that_the_run_names_or_else_of_its_stage_one(given, expected, tmp_path):
    launch = FakeLaunch()
    run(tmp_path, launch, stages=WITH_GRPO, grpo=given)
    subspace = launch.calls[-1][1].get("latent_subspace")
    assert subspace == (str(tmp_path / expected) if expected == "1-align" else expected)


def test_run_with_reinforcement_may_be_moved(tmp_path):
    run(tmp_path / "old", FakeLaunch(), stages=WITH_GRPO)
    (tmp_path / "old").rename(tmp_path / "new")
    launch = FakeLaunch()
    assert run(tmp_path / "new", launch, stages=WITH_GRPO) == tmp_path / "new" / "3-grpo"
    assert launch.calls == []


def test_finished_stages_are_not_repeated(tmp_path):
    run(tmp_path, FakeLaunch())
    again, said = FakeLaunch(), []
    assert run(tmp_path, again, said.append) == tmp_path / "2-answer"
    assert again.calls == []
    assert said == ["1-align is finished.", "2-answer is finished."]


def test_run_goes_on_with_the_stage_that_failed(tmp_path):
    with pytest.raises(StageError, match=r"^2-answer failed with exit code 7; see .*2-answer/log\.txt\.$") as error:
        run(tmp_path, FakeLaunch({"2-answer": Ending(7)}))
    assert error.value.exit_code == 7
    launch = FakeLaunch()
    run(tmp_path, launch)
    assert launch.kinds == ["answer"]


def test_stage_after_a_failed_one_is_not_begun(tmp_path):
    launch = FakeLaunch({"1-align": Ending(1)})
    with pytest.raises(StageError, match="1-align failed"):
        run(tmp_path, launch)
    assert launch.kinds == ["align"]
    assert not (tmp_path / "2-answer").exists()


@pytest.mark.parametrize("step", [3, 0], ids=["checkpoint before the end", "no step"])
def test_stage_that_ends_early_without_failing_is_not_finished(step, tmp_path):
    launch = FakeLaunch(steps={"1-align": step})
    with pytest.raises(StageError, match=f"1-align stopped after step {step} of 4; run the same command to go on"):
        run(tmp_path, launch)
    again = FakeLaunch()
    run(tmp_path, again)
    assert again.kinds == ["align", "answer"]


def test_ctrl_c_ends_the_run_and_the_next_one_goes_on(tmp_path):
    launch = FakeLaunch({"1-align": Ending(1, is_interrupted=True)}, {"1-align": 2})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, launch)
    assert launch.kinds == ["align"]
    again = FakeLaunch()
    run(tmp_path, again)
    assert again.kinds == ["align", "answer"]


def test_ctrl_c_in_the_last_step_ends_the_run_after_a_finished_stage(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, FakeLaunch({"1-align": Ending(0, is_interrupted=True)}))
    again = FakeLaunch()
    run(tmp_path, again)
    assert again.kinds == ["answer"]


def test_other_arguments_are_refused_before_anything_runs(tmp_path):
    run(tmp_path, FakeLaunch(), answer={"seed": 1})
    launch = FakeLaunch()
    with pytest.raises(
        StaleWorkError, match=r"2-answer' that was made with other parameters: seed was 1 and is now 2\."
    ):
        run(tmp_path, launch, answer={"seed": 2})
    assert launch.calls == []


def test_stage_made_from_another_checkpoint_is_refused(tmp_path):
    run(tmp_path, FakeLaunch(), align={"seed": 1})
    shutil.rmtree(tmp_path / "1-align")
    with pytest.raises(StaleWorkError, match=r"2-answer'.*: starts_from\.seed was 1 and is now 2\."):
        run(tmp_path, FakeLaunch(), align={"seed": 2})


def test_run_from_another_base_is_refused(tmp_path):
    run(tmp_path, FakeLaunch())
    with pytest.raises(StaleWorkError, match="starts_from was base and is now other"):
        run(tmp_path, FakeLaunch(), model_name_or_path="other")


def test_stage_that_has_not_begun_may_still_change(tmp_path):
    with pytest.raises(StageError):
        run(tmp_path, FakeLaunch({"1-align": Ending(1)}), answer={"seed": 1})
    launch = FakeLaunch()
    run(tmp_path, launch, answer={"seed": 2})
    assert launch.calls[1][1]["seed"] == 2


def test_folder_of_a_run_may_be_moved(tmp_path):
    run(tmp_path / "old", FakeLaunch())
    (tmp_path / "old").rename(tmp_path / "new")
    launch = FakeLaunch()
    assert run(tmp_path / "new", launch) == tmp_path / "new" / "2-answer"
    assert launch.calls == []


def test_reasoning_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="1-answer needs `dataset_name`"):
        run(tmp_path, FakeLaunch(), stages={"coconut": {"num_steps": 1}})
