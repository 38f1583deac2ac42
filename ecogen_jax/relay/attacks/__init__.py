"""What somebody who reads the messages of a federation learns about the images."""
