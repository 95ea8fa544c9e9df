"""Types of the custom resource `DisaggTrainingJob`, the single source of its schema, defaults, bounds and messages."""

from eyas_operator.api.job import DisaggTrainingJob, JobSpec
from eyas_operator.api.load import load_yaml
from eyas_operator.api.parse import parse

__all__ = ["DisaggTrainingJob", "JobSpec", "load_yaml", "parse"]
