"""Checkpoints: sharded safetensors, a JSON layout, a manifest of digests, and the rules by which one is believed.

Torch-free: tensors come and go as bytes with a name, a dtype and a shape. One directory is one checkpoint and is
written by one incarnation only; it counts when the metadata service has committed the digest of its manifest.

- `names`: directory and file names.
- `pieces`: the slices of tensors that one rank holds, and the shard file they make.
- `layout`: where every tensor's bytes are, for any other world size.
- `manifest`: digests of every file, the service's state as of the step, verdicts, receipt.
- `writer`: one collective save.  `reader`: slices of a verified checkpoint.
- `store`: the root folder: marker, listing, deletion.  `verify`: which directory is believed at a start.
- `weights`: the digest of the trained weights that does not depend on how they were sharded.
"""
