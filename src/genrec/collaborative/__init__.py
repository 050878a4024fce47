"""Item distributions from counts: what can stand beside the language model as its prior."""
