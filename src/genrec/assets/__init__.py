"""Backbones and data sets by name: fetched once, verified, kept in a cache."""
