"""What every process needs to run: loop, clock, back-off, signals, logs, metrics, configuration."""
