"""The worker: what runs on every node."""
