"""Benchmarks that ship with the product: `eyas bench ...` prints both arms and their ratio.

Rules: arms run in alternation in one process on the same inputs, so that a busy machine slows both; what is reported is
the median ratio of pairs, beside the raw figures. Benchmarks are never timed tests.
"""
