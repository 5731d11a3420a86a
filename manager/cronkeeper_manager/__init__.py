"""The manager: the use cases, the planner, and the leader daemon."""
