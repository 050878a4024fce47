"""The language model as a distribution over the titles of a catalogue."""
