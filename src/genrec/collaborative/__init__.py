"""Item distributions from interaction counts, which serve as the language model's prior."""
