"""storm_hf: video-language models that think in latent video."""
