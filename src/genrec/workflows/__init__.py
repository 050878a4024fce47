"""The workflows behind the commands: training, evaluation, comparison and the demo."""
