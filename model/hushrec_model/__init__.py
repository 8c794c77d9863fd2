"""Reading a shop's log, training the Transformer and evaluating it (torch)."""

import os

# Threads that wait for each other by spinning make a training step 6 to 20 times slower while anything else runs on
# the machine, and next to nothing faster on a quiet one. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
