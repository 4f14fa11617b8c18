"""Sound: from one second of samples to what the networks see."""
