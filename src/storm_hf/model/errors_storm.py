"""The errors of the code that ships with a checkpoint.

`storm_hf.errors` builds the rest of the tree on `StormError`. This file lies beside the weights on the Hub, so it imports
nothing.
"""


class StormError(Exception):
    """The root of every error that STORM raises on purpose. The message says what was expected, what came, what to do."""


class LatentLayoutError(StormError, ValueError):
    """The latent block of a prompt is missing, broken, doubled or in different columns."""


class LatentShapeError(StormError, ValueError):
    """Latents that were handed in do not have the shape of the rollout."""


class BackboneError(StormError, ValueError):
    """The backbone cannot do what STORM needs of it."""


class UnsupportedGenerationError(StormError, NotImplementedError):
    """A way of generating that cannot think in latents."""


class CacheError(StormError, ValueError):
    """A key-value cache that the rollout cannot write to or differentiate through."""


class ConfigurationError(StormError, ValueError):
    """A setting of a model or of a training run that is out of its range, or contradicts another."""


class VersionError(StormError, ImportError):
    """An installed package is too old for this code."""
