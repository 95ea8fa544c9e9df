"""The Kubernetes backend: the `Cluster` port on an API server. The only place that knows the `kubernetes` client.

`connect` finds the API server, `client` asks it, `errors` says what a refusal means, `resources` and `listing` know
paths and answers, `cache` holds what the watches told, `report` asks metadata services, `recorder` posts events,
`cluster` is the adapter. Nothing here decides anything about jobs.
"""
