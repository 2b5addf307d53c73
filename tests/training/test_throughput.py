"""Throughput in the log: correct numbers, at no cost, and nothing unknown."""

import time

import pytest
import torch
from tests.tiny import tiny_storm
from tests.training.tiny_training import STAGES, TinyCollator, logged, tiny_trainer
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import TrainerCallback

from storm_hf.errors import ConfigurationError
from storm_hf.training.flops import attention_shape, count_parameters, training_flops
from storm_hf.training.throughput import ThroughputMeter, peak_flops_per_second


METRICS = {"tokens_per_second", "padding_share", "step_seconds", "data_wait_share", "peak_memory_mib"}
CPU = torch.device("cpu")


class Sleep(TrainerCallback):
    """Takes its time where a trainer saves, evaluates or steps."""

    def __init__(self, event, seconds=0.3):
        setattr(self, event, lambda *args, **kwargs: time.sleep(seconds))


class SlowCollator(TinyCollator):
    def __call__(self, rows):
        time.sleep(0.2)
        return super().__call__(rows)


def tiny_storm_config():
    return tiny_storm("qwen2_5_vl", num_latents=3).config


def steps_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("stage", STAGES)
def test_every_line_of_the_log_has_the_throughput(stage, kind, tmp_path):
    trainer = tiny_trainer(stage, kind, tmp_path)
    trainer.train()
    for step in steps_of(trainer):
        assert step.keys() >= METRICS
        assert step["tokens_per_second"] > 0
        assert 0 < step["data_wait_share"] < 1
        assert 100 < step["peak_memory_mib"] < 100_000  # torch alone takes more than the first
        assert "model_flops_utilisation" not in step, "nobody knows what a CPU can do"


def test_summary_of_the_run_repeats_no_throughput(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path)
    trainer.train()
    assert not METRICS & trainer.state.log_history[-1].keys()


def test_tokens_are_those_that_the_collator_made(tmp_path):
    two_epochs = {"num_rows": 8, "gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 2}
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, **two_epochs)
    masks = []
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: masks.append((batch := collate(rows))["attention_mask"]) or batch
    trainer.train()
    num_tokens = sum(int(mask.sum()) for mask in masks)
    seconds = [2 * step["step_seconds"] for step in steps_of(trainer)]
    total = sum(rate * duration for rate, duration in zip(logged(trainer, "tokens_per_second"), seconds, strict=True))
    assert total == pytest.approx(num_tokens)
    assert total == pytest.approx(logged(trainer, "num_tokens")[-1])


def test_pause_tokens_are_counted_as_the_ordinary_tokens_they_are(tmp_path):
    model = tiny_storm("qwen2_5_vl", num_latents=3, latent_token_id=None)
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model)
    trainer.train()
    assert all(step["tokens_per_second"] > 0 for step in steps_of(trainer))


def test_padding_share_is_that_of_the_batch(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, num_rows=2, max_steps=1)
    mask = trainer.data_collator(trainer.train_dataset.to_list())["attention_mask"]
    trainer.train()
    assert logged(trainer, "padding_share") == [pytest.approx(1 - float(mask.float().mean()))]
    assert logged(trainer, "padding_share")[0] > 0


def test_waiting_for_batches_is_told_from_training(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=3)
    trainer.data_collator = SlowCollator("qwen2_5_vl")
    trainer.train()
    assert min(logged(trainer, "data_wait_share")) > 0.5
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=3, callbacks=[Sleep("on_step_begin", 0.2)])
    trainer.train()
    assert max(logged(trainer, "data_wait_share")) < 0.5


@pytest.mark.parametrize("event", ["on_save", "on_evaluate"])
def test_saving_and_evaluating_are_off_the_clock(event, tmp_path):
    every_step = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 2}
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, callbacks=[Sleep(event, 1.0)], **every_step)
    if event == "on_evaluate":
        trainer.args.eval_strategy, trainer.args.eval_steps = "steps", 1
        trainer.state.eval_steps, trainer.eval_dataset = 1, trainer.train_dataset
    trainer.train()
    assert logged(trainer, "step_seconds")[0] < 0.5  # of two steps, the first is followed by a second of sleep


def test_utilisation_is_the_flops_of_the_tokens_over_those_of_the_machine(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, num_rows=2, max_steps=1, peak_flops_per_second=1e9)
    batch = trainer.data_collator(trainer.train_dataset.to_list())
    meter = ThroughputMeter(trainer.model.config)
    meter.observe([batch])
    tokens = meter.read(lambda row: row, CPU).tokens
    config = trainer.model.config
    flops = training_flops(count_parameters(trainer.model), tokens, attention_shape(config))
    trainer.train()
    (step,) = steps_of(trainer)
    assert step["model_flops_utilisation"] == pytest.approx(flops / 1e9 / step["step_seconds"])


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H20", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA RTX 9999", None),
    ],
)
def test_peak_is_known_of_whole_devices_by_their_full_name(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    args = FakeArguments(torch.device("cuda"), bf16=True)
    assert peak_flops_per_second(args) == peak
    assert peak_flops_per_second(FakeArguments(torch.device("cuda"), bf16=False)) is None
    assert peak_flops_per_second(FakeArguments(CPU, bf16=True)) is None


class FakeArguments:
    fp16 = False
    peak_flops_per_second = None

    def __init__(self, device, bf16):
        self.device, self.bf16 = device, bf16


def test_processes_add_up_and_the_fullest_memory_counts():
    batch = TinyCollator("qwen2_5_vl")([{"number": 1}, {"number": 2}])
    config = tiny_storm_config()
    meter = ThroughputMeter(config)
    meter.run()
    meter.observe([batch])
    alone = meter.read(lambda row: row, CPU)
    meter.observe([batch])
    more = torch.tensor([[0, 5_000_000, 1_000_000, 2**60, *[0] * 10]])
    both = meter.read(lambda row: torch.cat([row, row + more]), CPU)
    assert both.num_processes == 2
    assert both.num_steps == 1
    assert both.tokens == alone.tokens + alone.tokens
    assert both.num_cells == 2 * alone.num_cells
    assert both.peak_bytes > 2**60
    assert both.seconds == pytest.approx(5, abs=0.5)
    assert both.seconds_waiting == pytest.approx(0.5)


def test_nothing_is_read_where_nothing_happened():
    meter = ThroughputMeter(tiny_storm_config())
    meter.run()
    assert meter.read(lambda row: row, CPU) is None


def test_counting_never_waits_for_the_device(kind):
    """A fake tensor has no values: whatever would fetch one to the host raises."""
    meter = ThroughputMeter(tiny_storm(kind, num_latents=3).config, detaches_prompt=True)
    batch = TinyCollator(kind)([{"number": 1}, {"number": 2}])
    with FakeTensorMode() as mode:
        meter.observe([{name: mode.from_tensor(value) for name, value in batch.items()}])


def test_detached_prompts_are_counted_without_latents_and_answers():
    batch = TinyCollator("qwen2_5_vl")([{"number": 1}])
    meter = ThroughputMeter(tiny_storm_config(), detaches_prompt=True)
    meter.observe([batch])
    tokens = meter.read(lambda row: row, CPU).tokens
    assert tokens.detached == tokens.decoder - tokens.supervised - 3


def test_resumed_run_goes_on_counting_tokens(tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = tiny_trainer("answer", "qwen2_5_vl", tmp_path / "whole", **settings)
    whole.train()
    tiny_trainer("answer", "qwen2_5_vl", tmp_path / "cut", **{**settings, "max_steps": 2}).train()
    resumed = tiny_trainer("answer", "qwen2_5_vl", tmp_path / "cut", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "num_tokens") == logged(whole, "num_tokens")


def test_peak_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`peak_flops_per_second` must be a number above 0, got 0"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, peak_flops_per_second=0)
