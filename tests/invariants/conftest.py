"""Fixtures of the invariants."""

import pytest


@pytest.fixture
def checkpointed_model(model):
    """The module's model while its layers are recomputed in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    yield model
    model.activation_checkpointing_disable()
