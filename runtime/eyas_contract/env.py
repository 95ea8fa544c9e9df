"""Names of the environment variables and mounted files by which a pod tells its processes who they are.

Nothing secret is ever put in the environment: tokens are files under `TOKEN_DIRECTORY`.
"""

from typing import Final

CONFIG_FILE: Final = "EYAS_CONFIG_FILE"
"""Path of the job configuration (`eyas_contract.config.JobConfig` as JSON)."""
TOKEN_DIRECTORY: Final = "EYAS_TOKEN_DIRECTORY"
"""Folder with the token files that this role may hold, named by `TOKEN_*`."""
JOB_UID: Final = "EYAS_JOB_UID"
ROLE: Final = "EYAS_ROLE"
"""`metadata`, `producer`, `consumer`, `store-master` or `store-node`."""
REPLICA_INDEX: Final = "EYAS_REPLICA_INDEX"
ATTEMPT: Final = "EYAS_ATTEMPT"
"""Attempt of the consumer gang."""
ORDINAL: Final = "EYAS_ORDINAL"
"""Producer ordinal: rises whenever the operator replaces the pod of an index."""
RESTART: Final = "EYAS_RESTART"
"""How often this pod's supervisor has started the child before: 0, 1, ..."""
PROCESS: Final = "EYAS_PROCESS"
"""Random nonce of one child process, 32 hex digits, given by the supervisor."""
TRAINER: Final = "EYAS_TRAINER"
"""Consumers: `eagle3` (default), or `fake` in crash tests."""
CAPTURE: Final = "EYAS_CAPTURE"
"""Producers: `real` (default), or `fake` or `fake:SECONDS` in crash tests."""
RANK: Final = "RANK"
LOCAL_RANK: Final = "LOCAL_RANK"
WORLD_SIZE: Final = "WORLD_SIZE"
HOST_ADDRESS: Final = "EYAS_HOST_ADDRESS"
"""The pod's own address (a loopback address locally)."""
PARENT_PID: Final = "EYAS_PARENT_PID"
"""Process id of the supervisor; a child dies with it."""
TERMINATION_LOG: Final = "EYAS_TERMINATION_LOG"
"""File that takes one JSON line (`eyas_contract.wire.Termination`) when a role gives up."""
POD_DIRECTORY: Final = "EYAS_POD_DIRECTORY"
"""Writable scratch folder of the pod: readiness file, children file."""
GRACE_SECONDS: Final = "EYAS_GRACE_SECONDS"
"""Whole seconds between SIGTERM and SIGKILL of this pod (its `terminationGracePeriodSeconds`); 30 when absent."""

METADATA_DIRECTORY: Final = "EYAS_METADATA_DIRECTORY"
"""Metadata role: the folder (mounted claim) that holds the SQLite file."""
CHECKPOINT_STEP: Final = "EYAS_CHECKPOINT_STEP"
"""Metadata role: the highest durable step that the operator had recorded when it made the pod.

Starting at step 0 although this is above 0 means that checkpoints were lost.
"""

READY_PORT: Final = "EYAS_READY_PORT"
"""TCP port that the supervisor keeps open on the pod's address while the role can make progress; none when absent."""

TOKEN_PRODUCER: Final = "producer.token"
TOKEN_CONSUMER: Final = "consumer.token"
TOKEN_READER: Final = "reader.token"
TOKEN_STORE: Final = "store.token"
RECEIPT_KEY: Final = "receipt.key"
"""HMAC key of checkpoint receipts; mounted into the metadata pod only."""

METADATA_PORT: Final = 7380
RENDEZVOUS_PORT: Final = 7381
MASTER_PORT: Final = 7382
MASTER_METRICS_PORT: Final = 7383
READY_PORT_NUMBER: Final = 7385
"""`READY_PORT` of every pod on a cluster."""
READY_FILE: Final = "ready"
"""Under POD_DIRECTORY: exists while the role can make progress."""
CHILDREN_FILE: Final = "children.json"
"""Under POD_DIRECTORY: the supervisor's list of live children (`eyas_contract.wire.Child`)."""
