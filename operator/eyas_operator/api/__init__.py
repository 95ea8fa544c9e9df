"""Types of the custom resource `DisaggTrainingJob`, the single source of its schema, defaults, bounds and messages.

Nothing is imported here: who reads a status alone does not wait until the types of specs are built.
"""
