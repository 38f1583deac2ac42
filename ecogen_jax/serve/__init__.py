"""Task inference: the predictions of the parties, and their cost."""
