"""Nets as pure functions; the only folder that knows flax nnx."""
