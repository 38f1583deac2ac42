"""Running: from a config to a finished run folder."""
