-- The metadata store of one job: the newest schema, as all migrations together make it (a test compares the two).
--
-- Every CHECK restates a rule of eyas_contract/states.py or of the port, so that a bug becomes a failed transaction and
-- never a wrong row. Sample states move only along `samples_transition`. Times are Unix seconds, recorded, never compared.

-- What must be known before anything else; written once, compared at every open.
CREATE TABLE job (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  job_uid TEXT NOT NULL CHECK (length(job_uid) BETWEEN 8 AND 32),
  store_epoch INTEGER NOT NULL CHECK (store_epoch >= 0),
  window_size INTEGER NOT NULL CHECK (window_size >= 1),
  group_size INTEGER NOT NULL CHECK (group_size >= 1),
  epochs INTEGER NOT NULL CHECK (epochs >= 1),
  max_steps INTEGER CHECK (max_steps >= 1),
  seed INTEGER NOT NULL,
  retain_objects INTEGER NOT NULL CHECK (retain_objects IN (0, 1)),
  evaluate_every INTEGER NOT NULL DEFAULT 0 CHECK (evaluate_every >= 0)
) STRICT;

-- Counters that only move forward, and the durable step, which only a checkpoint or a reconcile moves.
CREATE TABLE progress (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  durable_step INTEGER NOT NULL DEFAULT 0 CHECK (durable_step >= 0),
  frontier_group INTEGER NOT NULL DEFAULT 0 CHECK (frontier_group >= 0),
  generation INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0),
  commits INTEGER NOT NULL DEFAULT 0 CHECK (commits >= 0),
  recaptured INTEGER NOT NULL DEFAULT 0 CHECK (recaptured >= 0),
  capture_drift INTEGER NOT NULL DEFAULT 0 CHECK (capture_drift >= 0),
  capture_fingerprint TEXT NOT NULL DEFAULT '' CHECK (length(capture_fingerprint) <= 200),
  training_fingerprint TEXT NOT NULL DEFAULT '' CHECK (length(training_fingerprint) <= 200),
  world_size INTEGER NOT NULL DEFAULT 0 CHECK (world_size >= 0),
  expected_inputs TEXT CHECK (length(expected_inputs) <= 4096),
  failure TEXT NOT NULL DEFAULT '' CHECK (length(failure) <= 4000)
) STRICT;

-- The prepared prompt set (wire.Prepared as JSON).
CREATE TABLE prepared (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  body BLOB NOT NULL,
  at REAL NOT NULL
) STRICT;

-- One row for each sequence number that was leased, killed or restored; no row means pending.
CREATE TABLE samples (
  sequence INTEGER PRIMARY KEY CHECK (sequence >= 0),
  state TEXT NOT NULL CHECK (state IN ('pending', 'ready', 'lost', 'dead', 'released')),
  object INTEGER CHECK (object >= 1),
  payload_digest TEXT CHECK (length(payload_digest) <= 200),
  commit_number INTEGER CHECK (commit_number >= 1),
  reason TEXT CHECK (length(reason) <= 1000),
  source TEXT CHECK (source IN ('producer', 'rank', 'prepare')),
  CHECK ((state = 'ready') = (object IS NOT NULL)),
  CHECK ((state = 'dead') = (source IS NOT NULL)),
  CHECK ((source IS NULL) = (reason IS NULL))
) STRICT;
CREATE INDEX samples_in_need ON samples (sequence) WHERE state IN ('pending', 'lost');
CREATE INDEX samples_dead ON samples (sequence) WHERE state = 'dead';
CREATE INDEX samples_object ON samples (object) WHERE object IS NOT NULL;

CREATE TRIGGER samples_transition BEFORE UPDATE OF state ON samples
WHEN NOT CASE old.state
  WHEN 'pending' THEN new.state IN ('ready', 'dead', 'released')
  WHEN 'ready' THEN new.state IN ('lost', 'dead', 'released')
  WHEN 'lost' THEN new.state IN ('ready', 'dead', 'released')
  WHEN 'dead' THEN new.state = 'lost'
  WHEN 'released' THEN new.state = 'lost'
END
BEGIN
  SELECT RAISE(ABORT, 'illegal transition of a sample');
END;

-- How many samples have a row in each state.
CREATE TABLE tally (
  state TEXT PRIMARY KEY CHECK (state IN ('pending', 'ready', 'lost', 'dead', 'released')),
  samples INTEGER NOT NULL DEFAULT 0 CHECK (samples >= 0)
) STRICT, WITHOUT ROWID;

-- Blobs that are (believed) in the pool, by their generation, which is never used twice.
-- used: a ready sample refers to it; kept: a later sequence number of its prompt may; garbage: to be deleted.
CREATE TABLE objects (
  generation INTEGER PRIMARY KEY CHECK (generation >= 1),
  key TEXT NOT NULL CHECK (length(key) <= 120),
  state TEXT NOT NULL CHECK (state IN ('used', 'kept', 'garbage')),
  prompt INTEGER CHECK (prompt >= 0),
  last_use INTEGER NOT NULL CHECK (last_use >= 0),
  length INTEGER NOT NULL CHECK (length >= 1),
  digest TEXT NOT NULL CHECK (length(digest) BETWEEN 1 AND 200),
  payload_digest TEXT NOT NULL CHECK (length(payload_digest) BETWEEN 1 AND 200),
  num_tokens INTEGER NOT NULL CHECK (num_tokens >= 0),
  num_supervised INTEGER NOT NULL CHECK (num_supervised >= 0),
  feature_specs TEXT NOT NULL CHECK (length(feature_specs) <= 8192),
  strategy TEXT NOT NULL CHECK (length(strategy) <= 100),
  schema_version INTEGER NOT NULL,
  fingerprint TEXT NOT NULL CHECK (length(fingerprint) <= 200)
) STRICT;
CREATE INDEX objects_garbage ON objects (generation) WHERE state = 'garbage';
CREATE INDEX objects_kept ON objects (generation) WHERE state = 'kept';
CREATE INDEX objects_prompt ON objects (prompt) WHERE prompt IS NOT NULL;

-- Sums over objects. Triggers count what comes and goes; whoever moves the state of objects moves the sums of the
-- picked ones with it, because a trigger for each of a million rows would take longer than the rows themselves.
CREATE TABLE object_totals (
  state TEXT PRIMARY KEY CHECK (state IN ('used', 'kept', 'garbage')),
  objects INTEGER NOT NULL DEFAULT 0 CHECK (objects >= 0),
  bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER objects_added AFTER INSERT ON objects BEGIN
  UPDATE object_totals SET objects = objects + 1, bytes = bytes + new.length WHERE state = new.state;
END;
CREATE TRIGGER objects_removed AFTER DELETE ON objects BEGIN
  UPDATE object_totals SET objects = objects - 1, bytes = bytes - old.length WHERE state = old.state;
END;

-- The live process of each producer index.
CREATE TABLE holders (
  holder_index INTEGER PRIMARY KEY CHECK (holder_index >= 0),
  ordinal INTEGER NOT NULL CHECK (ordinal >= 0),
  restart INTEGER NOT NULL CHECK (restart >= 0),
  fingerprint TEXT NOT NULL CHECK (length(fingerprint) <= 200)
) STRICT;

CREATE TABLE leases (
  number INTEGER PRIMARY KEY,
  lease_id TEXT NOT NULL UNIQUE CHECK (length(lease_id) BETWEEN 1 AND 64),
  token TEXT NOT NULL CHECK (length(token) BETWEEN 1 AND 64),
  group_number INTEGER NOT NULL CHECK (group_number >= 0),
  holder_index INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  restart INTEGER NOT NULL,
  request_id TEXT NOT NULL CHECK (length(request_id) BETWEEN 1 AND 64),
  term_seconds REAL NOT NULL CHECK (term_seconds > 0),
  deadline_seconds REAL NOT NULL CHECK (deadline_seconds > 0),
  state TEXT NOT NULL CHECK (state IN ('live', 'ended')),
  ended_because TEXT CHECK (length(ended_because) <= 100),
  granted_at REAL NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (holder_index, ordinal, restart, request_id),
  CHECK ((state = 'ended') = (ended_because IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX leases_one_a_group ON leases (group_number) WHERE state = 'live';

-- The keys that a lease may write, with the bytes reserved for each.
CREATE TABLE lease_keys (
  generation INTEGER PRIMARY KEY CHECK (generation >= 1),
  lease INTEGER NOT NULL REFERENCES leases (number) ON DELETE CASCADE,
  sequence INTEGER NOT NULL CHECK (sequence >= 0),
  key TEXT NOT NULL CHECK (length(key) <= 120),
  reserved_bytes INTEGER NOT NULL CHECK (reserved_bytes >= 0),
  digest TEXT CHECK (length(digest) <= 200),
  UNIQUE (lease, sequence)
) STRICT;

-- Groups that were in trouble: deaths of their holders, overruns of their deadline.
CREATE TABLE group_trouble (
  group_number INTEGER PRIMARY KEY CHECK (group_number >= 0),
  deaths INTEGER NOT NULL DEFAULT 0 CHECK (deaths >= 0),
  overruns INTEGER NOT NULL DEFAULT 0 CHECK (overruns >= 0)
) STRICT;

-- Lives of the consumer gang.
CREATE TABLE incarnations (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  incarnation TEXT NOT NULL UNIQUE CHECK (length(incarnation) BETWEEN 1 AND 64),
  attempt INTEGER NOT NULL CHECK (attempt >= 0),
  process TEXT NOT NULL CHECK (length(process) BETWEEN 1 AND 64),
  state TEXT NOT NULL CHECK (state IN ('open', 'closed')),
  checkpoint_step INTEGER NOT NULL CHECK (checkpoint_step >= 0),
  checkpoint_directory TEXT NOT NULL CHECK (length(checkpoint_directory) <= 200),
  world_size INTEGER NOT NULL CHECK (world_size >= 1),
  orders_given INTEGER NOT NULL DEFAULT 0 CHECK (orders_given >= 0),
  trained_step INTEGER NOT NULL CHECK (trained_step >= checkpoint_step),
  acked_step INTEGER NOT NULL CHECK (acked_step >= checkpoint_step),
  ordered_checkpoint_step INTEGER NOT NULL DEFAULT 0 CHECK (ordered_checkpoint_step >= 0),
  ending INTEGER NOT NULL DEFAULT 0 CHECK (ending IN (0, 1)),
  opened_at REAL NOT NULL,
  CHECK (acked_step <= trained_step)
) STRICT;
CREATE UNIQUE INDEX incarnations_one_open ON incarnations (state) WHERE state = 'open';

CREATE TABLE members (
  process TEXT PRIMARY KEY CHECK (length(process) BETWEEN 1 AND 64),
  incarnation INTEGER NOT NULL REFERENCES incarnations (number) ON DELETE CASCADE,
  rank INTEGER NOT NULL CHECK (rank >= 0),
  UNIQUE (incarnation, rank)
) STRICT;

-- What rank 0 was told. `body` is the answer, byte for byte, until the step is durable; `live` the sequence numbers
-- that a train order gives weight to.
CREATE TABLE orders (
  incarnation INTEGER NOT NULL REFERENCES incarnations (number) ON DELETE CASCADE,
  ordinal INTEGER NOT NULL CHECK (ordinal >= 0),
  kind TEXT NOT NULL CHECK (kind IN ('train', 'checkpoint', 'stop')),
  step INTEGER NOT NULL CHECK (step >= 0),
  version INTEGER NOT NULL CHECK (version >= 0),
  body BLOB,
  live TEXT,
  PRIMARY KEY (incarnation, ordinal),
  CHECK (kind <> 'train' OR (step >= 1 AND version >= 1))
) STRICT;
CREATE UNIQUE INDEX orders_train_once ON orders (incarnation, step) WHERE kind = 'train';

-- Sealed windows and the version of their content.
CREATE TABLE windows (
  step INTEGER PRIMARY KEY CHECK (step >= 1),
  version INTEGER NOT NULL CHECK (version >= 1)
) STRICT;

-- Progress of an incarnation, with the verdicts it announced.
CREATE TABLE acks (
  incarnation INTEGER NOT NULL REFERENCES incarnations (number) ON DELETE CASCADE,
  step INTEGER NOT NULL CHECK (step >= 1),
  version INTEGER NOT NULL CHECK (version >= 1),
  verdicts TEXT NOT NULL,
  PRIMARY KEY (incarnation, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE metrics (
  step INTEGER PRIMARY KEY CHECK (step >= 1),
  body TEXT NOT NULL CHECK (length(body) <= 65536)
) STRICT;

-- The ledger of promise 3: which sequence numbers the checkpoint commits of the surviving line gave weight to, and in
-- whose hands. A second application of one would be a second row.
CREATE TABLE trained (
  step INTEGER NOT NULL CHECK (step >= 1),
  sequence INTEGER NOT NULL CHECK (sequence >= 0),
  incarnation INTEGER NOT NULL,
  PRIMARY KEY (sequence, step, incarnation)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
  directory TEXT PRIMARY KEY CHECK (length(directory) BETWEEN 1 AND 200),
  step INTEGER NOT NULL CHECK (step >= 0),
  store_epoch INTEGER NOT NULL CHECK (store_epoch >= 0),
  attempt INTEGER NOT NULL CHECK (attempt >= 0),
  incarnation TEXT NOT NULL CHECK (length(incarnation) <= 64),
  manifest_digest TEXT UNIQUE CHECK (length(manifest_digest) BETWEEN 1 AND 200),
  receipt TEXT NOT NULL DEFAULT '' CHECK (length(receipt) <= 500),
  state TEXT NOT NULL CHECK (state IN ('listed', 'committed', 'struck')),
  weights_sha256 TEXT NOT NULL DEFAULT '' CHECK (length(weights_sha256) <= 100),
  nbytes INTEGER NOT NULL DEFAULT 0 CHECK (nbytes >= 0),
  garbage_of TEXT CHECK (length(garbage_of) <= 200),
  best TEXT CHECK (length(best) <= 1000),
  CHECK (state <> 'committed' OR manifest_digest IS NOT NULL)
) STRICT;

CREATE TABLE incidents (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  klass TEXT NOT NULL CHECK (length(klass) BETWEEN 1 AND 100),
  unit TEXT NOT NULL CHECK (length(unit) <= 200),
  message TEXT NOT NULL CHECK (length(message) <= 4000),
  detected REAL NOT NULL,
  step INTEGER NOT NULL DEFAULT 0,
  recovered REAL NOT NULL DEFAULT 0,
  windows_replayed INTEGER NOT NULL DEFAULT 0,
  serial INTEGER NOT NULL DEFAULT 0,
  replaced REAL NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE inexact (
  reason TEXT PRIMARY KEY CHECK (length(reason) BETWEEN 1 AND 1000)
) STRICT;
