"""Pure values and rules: the standard library and the cron parser, no I/O, no clock."""
