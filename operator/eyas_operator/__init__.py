"""The operator: turns one `DisaggTrainingJob` into running pods, and keeps it so.

The core is pure: `api` parses, `desired` builds children, `observe` folds what is there, `plan` decides. `cluster` is
the port through which `apply` and `reconciler` act; Kubernetes and a local machine are its adapters. Imports
`eyas_contract`, never `eyas_runtime`, never torch.
"""
