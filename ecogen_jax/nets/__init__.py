"""Nets as pure functions; the only folder that uses flax nnx."""
