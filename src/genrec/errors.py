"""Errors that the caller can fix. Each message names the problem and the remedy."""

from __future__ import annotations


class GenRecError(Exception):
    """Base class of all errors that GenRec raises on purpose.

    The command line prints the message and exits with status 2.
    """


class ConfigError(GenRecError):
    """A setting is unknown or out of range."""


class AssetError(GenRecError):
    """A backbone or data set could not be downloaded, verified or converted."""


class DataError(GenRecError):
    """Interactions, an item table or a prepared data set are missing, malformed or inconsistent."""


class UnknownItemError(DataError):
    """A title or id is not in the catalogue."""


class RunError(GenRecError):
    """A run folder is missing, incomplete, or from an incompatible version."""


class NotFittedError(RunError):
    """A model was used before it was fitted or loaded."""


class BackboneError(GenRecError):
    """A language model cannot be loaded, does not fit, or lacks a feature that the search needs."""
