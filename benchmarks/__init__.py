"""Measurements: each module prints a table, shows progress on stderr and writes the same as data with --json."""
