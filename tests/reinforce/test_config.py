"""Settings that cannot work are refused before anything is loaded."""

import pytest

from storm_hf import StormGRPOConfig
from storm_hf.errors import ConfigurationError


QUIET = {"use_cpu": True, "bf16": False, "report_to": "none"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_vllm": True}, "`use_vllm: True` is not supported. A roll-out feeds latents"),
        ({"use_transformers_continuous_batching": True}, "paged cache takes token ids"),
        ({"sync_ref_model": True, "beta": 0.1}, "the same when resumed"),
        ({"cast_lm_head_to_fp32": True}, "The head is the backbone's"),
        ({"chat_template_kwargs": {"a": 1}}, "Rows bring their own"),
        ({"bf16_full_eval": True}, "would round the weights themselves"),
        ({"remove_unused_columns": True}, "rewards read all their columns"),
        ({"estimator": "both"}, "`estimator` must be one of pathwise, score, got 'both'"),
        ({"latent_noise": -1}, "`latent_noise` must be a number of 0 or more"),
        ({"num_latents": 0}, "`num_latents` must be a whole number of 1 or more"),
        ({"estimator": "score", "latent_noise": 0}, "`estimator: score` needs `latent_noise` above 0"),
        ({"estimator": "score", "latent_subspace": "runs/align"}, "`score` draws noise in all directions"),
        ({"estimator": "score", "top_entropy_quantile": 0.5}, "which latents do not have"),
        ({"rewards": ["correct_answer", "beauty"]}, "Expected `rewards` among correct_answer, .* got 'beauty'"),
        ({"rewards": ["latent_use"]}, "`latent_use` judges roll-outs .* `donor_share` is 0. Set it to 0.5"),
        ({"donor_share": 1.5}, "`donor_share` must lie between 0 and 1"),
        ({"donor_share": 0.5}, "two questions or more on each process, 16 of them, got 8"),
        ({"video_backend": "vlc"}, "vlc"),
    ],
)
def test_setting_that_cannot_work_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        StormGRPOConfig(str(tmp_path), **{**QUIET, **settings})


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.01, 1), (0.25, 2), (0.5, 4), (1.0, 7)])
def test_a_group_has_roll_outs_of_both_kinds_wherever_it_has_donors(tmp_path, share, expected):
    config = StormGRPOConfig(str(tmp_path), donor_share=share, per_device_train_batch_size=16, **QUIET)
    assert config.num_generations == 8
    assert config.num_donor_rollouts == expected


def test_checkpointing_is_never_reentrant(tmp_path):
    config = StormGRPOConfig(str(tmp_path), activation_checkpointing_kwargs={"use_reentrant": True}, **QUIET)
    assert config.gradient_checkpointing_kwargs["use_reentrant"] is False
