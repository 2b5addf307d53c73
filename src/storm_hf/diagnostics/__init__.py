"""Do the latents matter? The same loop as generation, looked at through its one seam."""

from storm_hf.diagnostics.monitor import LatentMonitor
from storm_hf.diagnostics.replacement import feed, replacement
from storm_hf.diagnostics.retrieval import Neighbours, ThoughtGallery


__all__ = ["LatentMonitor", "Neighbours", "ThoughtGallery", "feed", "replacement"]
