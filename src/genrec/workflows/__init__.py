"""What the command line does: train, evaluate, compare, demonstrate."""
