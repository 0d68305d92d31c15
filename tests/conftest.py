"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# Machines here are shared and noisy: how long an example takes says nothing about the code.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")
