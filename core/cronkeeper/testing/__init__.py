"""Doubles that we ship; each passes the same contract suite as the real thing."""
