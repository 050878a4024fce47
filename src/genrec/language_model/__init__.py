"""The language model read as a distribution over the catalogue's titles."""
