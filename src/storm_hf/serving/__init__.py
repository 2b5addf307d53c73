"""OpenAI-compatible endpoint for one checkpoint: `storm serve`."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.serving.limits import RequestLimiter
    from storm_hf.serving.run import ServerSettings, run_server

_MODULE_OF = {
    "RequestLimiter": "storm_hf.serving.limits",
    "ServerSettings": "storm_hf.serving.run",
    "run_server": "storm_hf.serving.run",
}

__all__ = [
    "RequestLimiter",
    "ServerSettings",
    "run_server",
]


__getattr__ = first_use(__name__, _MODULE_OF)
