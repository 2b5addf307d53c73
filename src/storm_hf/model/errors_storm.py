"""The errors of the code that ships with a checkpoint.

`storm_hf.errors` builds the rest of the tree on `StormError`. This file lies beside the weights on the Hub, so it imports
nothing.
"""


class StormError(Exception):
    """The root of every error that STORM raises on purpose. The message says what was expected, what came, what to do."""


class BackboneError(StormError, ValueError):
    """The backbone cannot do what STORM needs of it."""


class ConfigurationError(StormError, ValueError):
    """A setting or argument that is out of its range, contradicts another, or asks for something that does not exist."""


class DependencyError(StormError, ImportError):
    """An installed package is missing, too old, or does not load; the message has the command that mends it."""


class LatentError(StormError, ValueError):
    """A latent block, latents or a target trajectory that do not fit the rollout."""
