"""The HTTP API: requests in, use cases out."""
