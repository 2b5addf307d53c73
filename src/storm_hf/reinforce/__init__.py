"""Reinforcement on latents: roll-outs with noise, rewards, and a policy gradient through them."""
