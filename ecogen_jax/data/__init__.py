"""Real image datasets and their partition over the parties of a run."""
