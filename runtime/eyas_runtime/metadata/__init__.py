"""The metadata store and its service: the durable truth about every sample of one job."""
