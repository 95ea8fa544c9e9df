"""The operator as a process on a cluster: settings, logs, probes, metrics, and the wiring of all parts (`main`)."""
