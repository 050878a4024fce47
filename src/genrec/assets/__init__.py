"""Backbones and data sets by name: downloaded once, verified, and kept in a cache."""
