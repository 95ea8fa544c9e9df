"""The producer: prompts in, hidden states of the target out, as refs in the metadata store.

Rules: a producer is stateless; what it holds is a lease, and everything it writes goes under keys that the lease names.
The bits of a sample are a function of its capture group alone (never of load, order or history), because a sample that
is captured again must give the same training. Only content that fails reproducibly is ever called poison. Modules that
must start fast (`prompts`, `tokenise`) import neither torch nor transformers at their top.
"""
