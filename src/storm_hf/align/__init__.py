"""Stage I: the latents are aligned with what a thought video shows."""
