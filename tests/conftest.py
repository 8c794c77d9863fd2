"""How hypothesis looks for counter-examples: the same ones in every run; HUSHREC_HYPOTHESIS=night looks longer and
elsewhere."""

import os

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None)  # a busy machine is no failure
settings.register_profile("night", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HUSHREC_HYPOTHESIS", "house"))
