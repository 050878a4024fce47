"""The exact top-k of the catalogue under the language model, and why an item is in it."""
