"""The exact top-k of the catalogue under the language model, and explanations of its items."""
