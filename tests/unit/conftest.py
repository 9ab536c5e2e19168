"""What every unit test needs."""

from hypothesis import settings

# A deadline per example measures the machine, not the code: 200 ms pass on a busy one.
settings.register_profile("unit", deadline=None)
# For one module at a time: `pytest tests/unit/X --hypothesis-profile=exhaustive`.
settings.register_profile("exhaustive", deadline=None, max_examples=1000)
settings.load_profile("unit")
