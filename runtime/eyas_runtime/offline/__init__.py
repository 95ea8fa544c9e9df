"""Offline mode between pools that share no network path: feature files travel with a manifest that says what they are.

Rules: torch-free; a manifest describes tensors and never holds one; what it names lies below its own folder.
"""
