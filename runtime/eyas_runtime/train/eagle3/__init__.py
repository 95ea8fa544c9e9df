"""EAGLE3: the draft model, its unrolled training loss and its parallelism. Pure numerics.

Nothing here knows windows, stores, leases or files: a batch of captured samples goes in, gradients and counted
metrics come out. The modules and the one thing that each decides:

- `config`: shapes of the draft, the objective, the optimiser.
- `vocab`: which target tokens the draft can say (torch-free).
- `batch`: the one normaliser (shift, last position masked) and collation of unequal lengths.
- `plan`: which positions do any work at all, computed once per batch.
- `model`: parameters and the decoder layer; `attention`: causal keys plus diagonal keys; `unroll`: the K steps.
- `teacher`: the frozen output matrix of the target; `loss`: the objective and its gradient in one pass.
- `metrics`: numerators and denominators to numbers.
- `optim`, `schedule`: AdamW, learning rate as a function of the step, clipping by the global norm.
- `parallelize`: FSDP2 whose gradients are plain sums over ranks.

Shape suffixes: B samples, T padded positions, L true length, H draft width, A target width, V target vocabulary,
D draft vocabulary, K unrolled steps, R active rows, P key rows, N supervised rows, M (row, step) pairs, N/G/E heads.
"""
