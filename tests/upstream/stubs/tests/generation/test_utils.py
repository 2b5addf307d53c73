"""Stands in for a file that transformers' source distribution leaves out: our own tests are of generation."""

from typing import Any


class GenerationTesterMixin:
    """Adds no test, only the inputs that other tests ask for."""

    model_tester: Any

    def prepare_config_and_inputs_for_generate(self, batch_size: int = 2) -> tuple[Any, dict[str, Any]]:
        """A configuration, and inputs of so many rows."""
        return self.model_tester.prepare_config_and_inputs_for_common(batch_size)
