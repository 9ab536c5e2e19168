"""What every unit test needs."""

from hypothesis import settings

# A deadline per example measures the machine, not the code: 200 ms pass on a busy one.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
