"""Arguments of Stage I out of range are refused when they are given, not after an epoch."""

import pytest

from storm_hf import StormAlignConfig
from storm_hf.errors import ConfigurationError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"align_loss": "l1"}, "`align_loss` must be one of cosine_mse, mse, cosine, infonce, got 'l1'"),
        ({"align_reduction": "none"}, "`align_reduction` must be one of mean, sum"),
        ({"forcing": "student"}, "`forcing` must be one of teacher, rollout, scheduled"),
        ({"target_pooling": "max"}, "`target_pooling` must be one of temporal, sequence"),
        ({"target_layout": "grid"}, "`target_layout` must be one of average, concat"),
        ({"target_normalize": "batchnorm"}, "`target_normalize` must be one of whiten, layernorm, none"),
        ({"whitening_statistics": "shared"}, "`whitening_statistics` must be one of pooled, per_slot"),
        ({"align_weight": -0.1}, "`align_weight` must be a number of 0 or more, got -0.1"),
        ({"whitening_rank": 0}, "`whitening_rank` must be a whole number of 1 or more, got 0"),
        ({"num_latents": 0}, "`num_latents` must be 1 or more to align latents, got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_argument_out_of_range_is_refused(arguments, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        StormAlignConfig(str(tmp_path), **arguments)


def test_literal_settings_of_the_paper_are_allowed(tmp_path):
    StormAlignConfig(
        str(tmp_path), align_weight=0.1, align_loss="mse", target_pooling="sequence", target_normalize="none"
    )
