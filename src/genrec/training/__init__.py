"""Fine-tuning on the catalogue likelihood."""
