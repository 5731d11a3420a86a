"""The command line: jobs and admin over HTTP, and the commands that start the services."""
