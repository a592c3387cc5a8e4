"""The embedded demo model: its corpus, tokenizer, trainer and evaluation. The service needs only `demo/checkpoint`."""

import os

# Read by OpenMP when torch is first imported. On a machine shared with other work, threads that spin while they
# wait for a descheduled partner made a training step four times slower than threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
