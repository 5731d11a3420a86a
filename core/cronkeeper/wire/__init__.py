"""Formats of what crosses a process boundary: versioned, and signed where a store must not be trusted."""
