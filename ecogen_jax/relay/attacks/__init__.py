"""Privacy attacks: what a reader of a federation's messages learns about the images."""
