"""The runtime of one job: metadata service, feature stores, capture, training, supervisors.

Rules: imports `eyas_contract`, never `eyas_operator`. `core` is pure; each heavy library has one door
(`sqlite3` in metadata, `mooncake` in features.blobs, `torch` in train, codec, capture and the tensor files of
checkpoints), so that every other module starts in milliseconds and can be tested without it.
"""
