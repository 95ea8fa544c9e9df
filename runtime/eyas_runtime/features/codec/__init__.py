"""Tensors to bytes and back: safetensors behind a header that says whose bytes they are.

Layout of a blob: a header of 128 bytes (`header`), then a safetensors file (`layout`) whose data begins at a multiple
of 64. Rules: the only part of the feature stores that imports torch; no pickle; what is read is verified against the
ref (digest, identity, lengths, names, dtypes, shapes) before a tensor exists; what does not agree is `Corrupt`.
"""
