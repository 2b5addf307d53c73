"""Do the latents matter? The same loop as generation, looked at through its one seam."""

from storm_hf.diagnostics.replacement import feed, replacement
from storm_hf.diagnostics.retrieval import Neighbours, ThoughtGallery


__all__ = ["Neighbours", "ThoughtGallery", "feed", "replacement"]
