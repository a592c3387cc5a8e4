"""Faults and attacks, each done many times to a real Gunicorn: `python -m tests.faults`, or `make faults`."""
