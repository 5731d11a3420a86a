"""Cronkeeper's core: what two or more components share. Nothing here knows a component."""

__version__ = "0.1.0"
