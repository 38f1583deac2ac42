"""Task inference: what the parties answer, and what an answer costs."""
