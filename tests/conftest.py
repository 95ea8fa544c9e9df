"""Settings of the whole test tree."""

from hypothesis import settings

# A busy machine makes any test slow: no property is judged by its time.
settings.register_profile("eyas", deadline=None, print_blob=True)
settings.load_profile("eyas")
