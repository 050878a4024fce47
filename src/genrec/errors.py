"""Errors that are the caller's to mend; every message names what is wrong and what to do next."""

from __future__ import annotations


class GenRecError(Exception):
    """Base of every error GenRec raises on purpose. The command line prints it and exits with 2."""


class ConfigError(GenRecError):
    """A setting is unknown or out of its range."""


class AssetError(GenRecError):
    """A backbone or data set could not be fetched, verified or converted."""


class DataError(GenRecError):
    """A log, item table or prepared data set is missing, malformed or inconsistent."""


class UnknownItemError(DataError):
    """A title or id is not in the catalogue."""


class RunError(GenRecError):
    """A run folder is missing, incomplete or made by an incompatible version."""


class NotFittedError(RunError):
    """A model is asked for something before it is fitted or loaded."""


class BackboneError(GenRecError):
    """A language model cannot be loaded, does not fit, or lacks what the search needs."""
