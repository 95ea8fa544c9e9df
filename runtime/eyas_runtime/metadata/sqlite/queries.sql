-- Every statement of the metadata store, by name. Parameters are named; ranges are half open: low <= x < high.
-- Statements that move samples take :origin and :target from states.py and are guarded by :origin.

-- name: user_version
PRAGMA user_version

-- ------------------------------------------------------------------------------------------------ job and progress

-- name: job
SELECT job_uid, store_epoch, window_size, group_size, epochs, max_steps, seed, retain_objects, evaluate_every FROM job

-- name: add_job
INSERT INTO job (id, job_uid, store_epoch, window_size, group_size, epochs, max_steps, seed, retain_objects,
  evaluate_every)
VALUES (1, :job_uid, :store_epoch, :window_size, :group_size, :epochs, :max_steps, :seed, :retain_objects,
  :evaluate_every)

-- name: add_progress
INSERT INTO progress (id) VALUES (1)

-- name: add_tally
INSERT INTO tally (state) VALUES ('pending'), ('ready'), ('lost'), ('dead'), ('released')

-- name: add_object_totals
INSERT INTO object_totals (state) VALUES ('used'), ('kept'), ('garbage')

-- name: progress
SELECT attempt, durable_step, frontier_group, generation, commits, recaptured, capture_drift, capture_fingerprint,
  training_fingerprint, world_size, expected_inputs, failure
FROM progress

-- name: set_attempt
UPDATE progress SET attempt = :attempt WHERE attempt <= :attempt

-- name: set_durable_step
UPDATE progress SET durable_step = :step

-- name: set_frontier
UPDATE progress SET frontier_group = :group WHERE frontier_group < :group

-- name: set_generation
UPDATE progress SET generation = :generation WHERE generation < :generation

-- name: add_commits
UPDATE progress SET commits = commits + :commits, recaptured = recaptured + :recaptured,
  capture_drift = capture_drift + :drift

-- name: set_capture_fingerprint
UPDATE progress SET capture_fingerprint = :fingerprint WHERE capture_fingerprint = ''

-- name: set_training_fingerprint
UPDATE progress SET training_fingerprint = :fingerprint, world_size = :world_size

-- name: set_expected_inputs
UPDATE progress SET expected_inputs = :inputs

-- name: fail_job
UPDATE progress SET failure = :message WHERE failure = ''

-- name: prepared
SELECT body FROM prepared

-- name: add_prepared
INSERT INTO prepared (id, body, at) VALUES (1, :body, :now)

-- --------------------------------------------------------------------------------------------------------- samples

-- name: tally
SELECT state, samples FROM tally

-- name: add_to_tally
UPDATE tally SET samples = samples + :delta WHERE state = :state

-- name: members
SELECT sequence, state, payload_digest, commit_number FROM samples
WHERE sequence >= :low AND sequence < :high ORDER BY sequence

-- name: add_pending_range
INSERT OR IGNORE INTO samples (sequence, state)
WITH RECURSIVE numbers (n) AS (SELECT :low WHERE :low < :high UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :high)
SELECT n, 'pending' FROM numbers

-- name: add_released_range
INSERT OR IGNORE INTO samples (sequence, state)
WITH RECURSIVE numbers (n) AS (SELECT :low WHERE :low < :high UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :high)
SELECT n, 'released' FROM numbers

-- name: add_pending_chosen
INSERT OR IGNORE INTO samples (sequence, state) SELECT sequence, 'pending' FROM chosen

-- name: drop_beyond
DELETE FROM samples WHERE sequence >= :total AND state = :state

-- name: move_range
UPDATE samples SET state = :target, object = NULL, reason = NULL, source = NULL
WHERE state = :origin AND sequence >= :low AND sequence < :high

-- name: move_range_of_ranks
UPDATE samples SET state = :target, object = NULL, reason = NULL, source = NULL
WHERE state = :origin AND source = 'rank' AND sequence >= :low AND sequence < :high

-- name: move_range_unless_chosen
UPDATE samples SET state = :target, object = NULL, reason = NULL, source = NULL
WHERE state = :origin AND source <> 'prepare' AND sequence >= :low AND sequence < :high
  AND sequence NOT IN (SELECT sequence FROM chosen)

-- name: move_chosen
UPDATE samples SET state = :target, object = NULL, reason = NULL, source = NULL
WHERE state = :origin AND sequence IN (SELECT sequence FROM chosen)

-- name: move_picked
UPDATE samples SET state = :target, object = NULL, reason = NULL, source = NULL
WHERE state = :origin AND object IN (SELECT generation FROM picked)

-- name: kill_chosen
UPDATE samples SET state = :target, object = NULL,
  reason = (SELECT chosen.reason FROM chosen WHERE chosen.sequence = samples.sequence),
  source = (SELECT chosen.source FROM chosen WHERE chosen.sequence = samples.sequence)
WHERE state = :origin AND sequence IN (SELECT sequence FROM chosen)

-- name: make_ready
UPDATE samples SET state = :target, object = :generation, payload_digest = :payload_digest,
  commit_number = coalesce(commit_number, :commit_number)
WHERE state = :origin AND sequence = :sequence

-- name: number_restored
UPDATE samples SET commit_number = :commits + sequence + 1
WHERE commit_number IS NULL AND sequence < :high AND (state = 'released' OR source = 'rank')

-- name: unnumber_chosen
UPDATE samples SET commit_number = NULL
WHERE commit_number IS NOT NULL AND sequence IN (SELECT sequence FROM chosen)

-- name: clear_chosen
DELETE FROM chosen

-- name: choose
INSERT OR REPLACE INTO chosen (sequence, reason, source) VALUES (:sequence, :reason, :source)

-- name: choose_dead
INSERT OR REPLACE INTO chosen (sequence, reason, source)
SELECT sequence, reason, source FROM samples WHERE state = 'dead' AND source <> 'prepare' AND sequence < :high

-- name: sequence_end
SELECT coalesce(max(sequence) + 1, 0) FROM samples

-- name: unready_in_range
SELECT :high - :low - count(*) FROM samples
WHERE sequence >= :low AND sequence < :high AND state IN ('ready', 'dead')

-- name: dead_below
SELECT count(*) FROM samples WHERE state = 'dead' AND sequence < :high

-- name: dead_held_out_below
SELECT count(*) FROM samples
WHERE state = 'dead' AND sequence < :high AND (sequence % :cycle >= :offset OR sequence >= :last)

-- name: dead_letters
SELECT sequence, reason, source FROM samples WHERE state = 'dead' AND sequence < :high ORDER BY sequence LIMIT :limit

-- name: recorded_dead_letters
SELECT sequence, reason, source FROM samples
WHERE state = 'dead' AND source <> 'prepare' AND sequence < :high ORDER BY sequence

-- name: committed_in_order
SELECT sequence FROM samples WHERE commit_number IS NOT NULL ORDER BY commit_number

-- name: in_need_in_range
SELECT count(*) FROM samples WHERE state IN ('pending', 'lost') AND sequence >= :low AND sequence < :high

-- name: next_in_need
SELECT sequence FROM samples WHERE state IN ('pending', 'lost') AND sequence >= :low AND sequence < :high
ORDER BY sequence LIMIT 1

-- --------------------------------------------------------------------------------------------------------- objects

-- name: add_object
INSERT INTO objects (generation, key, state, prompt, last_use, length, digest, payload_digest, num_tokens,
  num_supervised, feature_specs, strategy, schema_version, fingerprint)
VALUES (:generation, :key, 'used', :prompt, :last_use, :length, :digest, :payload_digest, :num_tokens,
  :num_supervised, :feature_specs, :strategy, :schema_version, :fingerprint)

-- name: object_of_prompt
SELECT generation, payload_digest FROM objects
WHERE prompt = :prompt AND state IN ('used', 'kept') ORDER BY generation DESC LIMIT 1

-- name: use_picked
UPDATE objects SET state = 'used' WHERE state = 'kept' AND generation IN (SELECT generation FROM picked)

-- name: refs_in_range
SELECT s.sequence, s.state, o.generation, o.key, o.digest, o.payload_digest, o.length, o.num_tokens, o.num_supervised,
  o.feature_specs, o.strategy, o.schema_version, o.fingerprint
FROM samples AS s LEFT JOIN objects AS o ON o.generation = s.object
WHERE s.sequence >= :low AND s.sequence < :high ORDER BY s.sequence

-- name: clear_picked
DELETE FROM picked

-- name: pick_range
INSERT OR IGNORE INTO picked (generation)
SELECT object FROM samples WHERE object IS NOT NULL AND sequence >= :low AND sequence < :high

-- name: pick_chosen
INSERT OR IGNORE INTO picked (generation)
SELECT object FROM samples WHERE object IS NOT NULL AND sequence IN (SELECT sequence FROM chosen)

-- name: pick_lost
INSERT OR IGNORE INTO picked (generation)
SELECT object FROM samples WHERE sequence = :sequence AND state = 'ready' AND object = :generation

-- name: pick_key
INSERT OR IGNORE INTO picked (generation) SELECT generation FROM objects WHERE generation = :generation AND key = :key

-- name: pick_to_evict
INSERT OR IGNORE INTO picked (generation)
SELECT generation FROM (
  SELECT generation, sum(length) OVER (ORDER BY lowest DESC, generation DESC) - length AS freed_before
  FROM (
    SELECT generation, length, 9223372036854775807 AS lowest FROM objects WHERE state = 'kept'
    UNION ALL
    SELECT s.object, o.length, min(s.sequence) FROM samples AS s JOIN objects AS o ON o.generation = s.object
    WHERE s.object IS NOT NULL AND o.state = 'used' GROUP BY s.object HAVING min(s.sequence) >= :above
  )
) WHERE freed_before < :nbytes

-- name: evictable_bytes
SELECT coalesce(sum(o.length), 0) FROM samples AS s JOIN objects AS o ON o.generation = s.object
WHERE s.sequence >= :above AND s.sequence = (SELECT min(uses.sequence) FROM samples AS uses WHERE uses.object = s.object)

-- name: picked_bytes
SELECT coalesce(sum(length), 0) FROM objects WHERE generation IN (SELECT generation FROM picked)

-- name: settle_picked
UPDATE objects SET state = CASE
    WHEN EXISTS (SELECT 1 FROM samples WHERE samples.object = objects.generation) THEN 'used'
    WHEN last_use >= :durable_end AND prompt IS NOT NULL THEN 'kept'
    ELSE 'garbage' END
WHERE state <> 'garbage' AND generation IN (SELECT generation FROM picked)

-- name: discard_picked
UPDATE objects SET state = 'garbage' WHERE generation IN (SELECT generation FROM picked)

-- name: pick_kept
INSERT OR IGNORE INTO picked (generation) SELECT generation FROM objects WHERE state = 'kept' AND last_use < :durable_end

-- name: pick
INSERT OR IGNORE INTO picked (generation) VALUES (:generation)

-- name: picked_totals
SELECT state, count(*), sum(length) FROM objects WHERE generation IN (SELECT generation FROM picked) GROUP BY state

-- name: add_to_totals
UPDATE object_totals SET objects = objects + :objects, bytes = bytes + :bytes WHERE state = :state

-- name: forget_picked
DELETE FROM objects WHERE generation IN (SELECT generation FROM picked)

-- name: forget_garbage
DELETE FROM objects WHERE generation = :generation AND key = :key AND state = 'garbage'

-- name: releasable
SELECT key, length FROM objects WHERE state = 'garbage' ORDER BY generation LIMIT :limit

-- name: resident
SELECT key, length FROM objects WHERE state IN ('used', 'kept') AND generation > :after ORDER BY generation LIMIT :limit

-- name: is_live_key
SELECT EXISTS (SELECT 1 FROM objects WHERE generation = :generation AND key = :key)
  OR EXISTS (
    SELECT 1 FROM lease_keys AS k JOIN leases AS l ON l.number = k.lease
    WHERE k.generation = :generation AND k.key = :key AND l.state = 'live'
  )

-- name: object_totals
SELECT state, objects, bytes FROM object_totals

-- name: bytes_in_range
SELECT coalesce(sum(o.length), 0) FROM samples AS s JOIN objects AS o ON o.generation = s.object
WHERE s.sequence >= :low AND s.sequence < :high

-- ------------------------------------------------------------------------------------------------------- producers

-- name: holder
SELECT ordinal, restart, fingerprint FROM holders WHERE holder_index = :holder_index

-- name: set_holder
INSERT INTO holders (holder_index, ordinal, restart, fingerprint)
VALUES (:holder_index, :ordinal, :restart, :fingerprint)
ON CONFLICT (holder_index) DO UPDATE
SET ordinal = excluded.ordinal, restart = excluded.restart, fingerprint = excluded.fingerprint
WHERE (excluded.ordinal, excluded.restart) >= (ordinal, restart)

-- name: live_leases_of
SELECT lease_id FROM leases WHERE holder_index = :holder_index AND state = 'live' ORDER BY number

-- name: live_leases
SELECT lease_id, holder_index, ordinal, restart, group_number, term_seconds, deadline_seconds
FROM leases WHERE state = 'live' ORDER BY number

-- name: lease_of_request
SELECT body FROM leases
WHERE holder_index = :holder_index AND ordinal = :ordinal AND restart = :restart AND request_id = :request_id

-- name: live_lease_of_request
SELECT body FROM leases
WHERE holder_index = :holder_index AND ordinal = :ordinal AND restart = :restart AND request_id = :request_id
  AND state = 'live'

-- name: live_lease_of_group
SELECT lease_id FROM leases WHERE group_number = :group AND state = 'live'

-- name: lease
SELECT number, token, group_number, holder_index, ordinal, restart, state, ended_because
FROM leases WHERE lease_id = :lease_id

-- name: add_lease
INSERT INTO leases (lease_id, token, group_number, holder_index, ordinal, restart, request_id, term_seconds,
  deadline_seconds, state, granted_at, body)
VALUES (:lease_id, :token, :group, :holder_index, :ordinal, :restart, :request_id, :term_seconds,
  :deadline_seconds, 'live', :now, :body)

-- name: add_lease_key
INSERT INTO lease_keys (generation, lease, sequence, key, reserved_bytes)
SELECT :generation, number, :sequence, :key, :reserved_bytes FROM leases WHERE lease_id = :lease_id

-- name: lease_keys
SELECT sequence, generation, key, digest FROM lease_keys WHERE lease = :lease

-- name: note_committed_key
UPDATE lease_keys SET digest = :digest WHERE generation = :generation AND digest IS NULL

-- name: lease_keys_open
SELECT count(*) FROM lease_keys AS k JOIN samples AS s ON s.sequence = k.sequence
WHERE k.lease = :lease AND k.digest IS NULL AND s.state IN ('pending', 'lost') AND k.sequence >= :durable_end

-- name: end_lease
UPDATE leases SET state = 'ended', ended_because = :reason WHERE lease_id = :lease_id AND state = 'live'

-- name: prune_leases
DELETE FROM leases WHERE holder_index = :holder_index AND state = 'ended' AND number NOT IN (
  SELECT number FROM leases WHERE holder_index = :holder_index AND state = 'ended' ORDER BY number DESC LIMIT :keep
)

-- name: lease_usage
SELECT count(DISTINCT l.number), coalesce(sum(CASE WHEN k.digest IS NULL THEN k.reserved_bytes ELSE 0 END), 0)
FROM leases AS l LEFT JOIN lease_keys AS k ON k.lease = l.number WHERE l.state = 'live'

-- name: note_death
INSERT INTO group_trouble (group_number, deaths) SELECT group_number, 1 FROM leases WHERE lease_id = :lease_id
ON CONFLICT (group_number) DO UPDATE SET deaths = deaths + 1

-- name: note_overrun
INSERT INTO group_trouble (group_number, overruns) SELECT group_number, 1 FROM leases WHERE lease_id = :lease_id
ON CONFLICT (group_number) DO UPDATE SET overruns = overruns + 1

-- name: clear_trouble
DELETE FROM group_trouble WHERE group_number = :group

-- name: overruns
SELECT overruns FROM group_trouble WHERE group_number = :group

-- name: suspects
SELECT group_number, deaths FROM group_trouble WHERE deaths > 0 ORDER BY deaths DESC, group_number LIMIT :limit

-- ------------------------------------------------------------------------------------------------------- consumers

-- name: incarnation
SELECT number, incarnation, attempt, process, state, checkpoint_step, checkpoint_directory, world_size, orders_given,
  trained_step, acked_step, ordered_checkpoint_step, ending
FROM incarnations WHERE incarnation = :incarnation

-- name: newest_incarnation
SELECT number, incarnation, attempt, process, state, checkpoint_step, checkpoint_directory, world_size, orders_given,
  trained_step, acked_step, ordered_checkpoint_step, ending
FROM incarnations ORDER BY number DESC LIMIT 1

-- name: reached_step
SELECT coalesce(max(acked_step), 0) FROM incarnations

-- name: trained_again
SELECT coalesce(sum(
    min((high / :windows * :training + min(high % :windows, :training)) * :window_size, :samples)
    - min((low / :windows * :training + min(low % :windows, :training)) * :window_size, :samples)), 0)
FROM (
  SELECT checkpoint_step AS low, min(acked_step, max(acked_step) OVER (
    ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS high
  FROM incarnations
) WHERE high > low

-- name: add_incarnation
INSERT INTO incarnations (incarnation, attempt, process, state, checkpoint_step, checkpoint_directory, world_size,
  trained_step, acked_step, opened_at)
VALUES (:incarnation, :attempt, :process, 'open', :step, :directory, :world_size, :step, :step, :now)

-- name: close_incarnations
UPDATE incarnations SET state = 'closed' WHERE state = 'open'

-- name: add_member
INSERT INTO members (process, incarnation, rank)
SELECT :process, number, :rank FROM incarnations WHERE incarnation = :incarnation

-- name: member
SELECT i.incarnation, i.state, i.attempt, m.rank FROM members AS m JOIN incarnations AS i ON i.number = m.incarnation
WHERE m.process = :process

-- name: member_of_rank
SELECT process FROM members WHERE incarnation = :number AND rank = :rank

-- name: order
SELECT kind, step, version, body FROM orders WHERE incarnation = :number AND ordinal = :ordinal

-- name: add_order
INSERT INTO orders (incarnation, ordinal, kind, step, version, body, live)
VALUES (:number, :ordinal, :kind, :step, :version, :body, :live)

-- name: note_order
UPDATE incarnations SET orders_given = :ordinal + 1,
  trained_step = CASE WHEN :kind = 'train' THEN :step ELSE trained_step END,
  ordered_checkpoint_step = CASE WHEN :kind = 'checkpoint' THEN :step ELSE ordered_checkpoint_step END,
  ending = max(ending, :ending)
WHERE number = :number AND state = 'open' AND orders_given = :ordinal

-- name: train_order_of_step
SELECT version FROM orders WHERE incarnation = :number AND kind = 'train' AND step = :step

-- name: checkpoint_order_of_step
SELECT count(*) FROM orders WHERE incarnation = :number AND kind = 'checkpoint' AND step = :step

-- name: current_train_orders
SELECT count(*) FROM orders AS o JOIN windows AS w ON w.step = o.step AND w.version = o.version
WHERE o.incarnation = :number AND o.kind = 'train' AND o.step > :after AND o.step <= :step

-- name: drop_order_bodies
UPDATE orders SET body = NULL, live = NULL WHERE incarnation = :number AND step <= :step AND kind <> 'stop'

-- name: drop_orders
DELETE FROM orders

-- name: drop_acks
DELETE FROM acks WHERE step <= :step OR incarnation < :number

-- name: window
SELECT version FROM windows WHERE step = :step

-- name: seal_window
INSERT OR IGNORE INTO windows (step, version) VALUES (:step, 1)

-- name: new_version
UPDATE windows SET version = version + 1 WHERE step = :step

-- name: sealed_step
SELECT coalesce(max(step), 0) FROM windows

-- name: add_ack
INSERT INTO acks (incarnation, step, version, verdicts) VALUES (:number, :step, :version, :verdicts)

-- name: ack
SELECT version FROM acks WHERE incarnation = :number AND step = :step

-- name: acked_verdicts
SELECT verdicts FROM acks WHERE incarnation = :number AND step > :after AND step <= :step AND verdicts <> '[]'

-- name: advance_ack
UPDATE incarnations SET acked_step = :step
WHERE number = :number AND state = 'open' AND acked_step = :step - 1 AND trained_step >= :step

-- name: raise_ack
UPDATE incarnations SET acked_step = max(acked_step, :step) WHERE number = :number AND trained_step >= :step

-- name: set_metrics
INSERT INTO metrics (step, body) VALUES (:step, :body) ON CONFLICT (step) DO UPDATE SET body = excluded.body

-- name: metrics
SELECT step, body FROM metrics WHERE step > :after ORDER BY step LIMIT :limit

-- name: last_metrics
SELECT coalesce(max(step), 0) FROM metrics

-- name: metrics_of
SELECT body FROM metrics WHERE step = :step

-- name: restore_metrics
INSERT OR IGNORE INTO metrics (step, body) VALUES (:step, :body)

-- ----------------------------------------------------------------------------------------------------- checkpoints

-- name: add_trained
INSERT INTO trained (step, sequence, incarnation)
SELECT o.step, j.value, o.incarnation FROM orders AS o, json_each(o.live) AS j
WHERE o.incarnation = :number AND o.kind = 'train' AND o.step > :after AND o.step <= :step
  AND j.value NOT IN (SELECT sequence FROM chosen)

-- name: add_trained_restored
INSERT INTO trained (step, sequence, incarnation)
SELECT :step + (sequence - :low) / :window_size, sequence, 0 FROM samples
WHERE sequence >= :low AND sequence < :high AND state = 'released'

-- name: drop_trained_above
DELETE FROM trained WHERE step > :step

-- name: drop_trained
DELETE FROM trained

-- name: drop_trained_chosen
DELETE FROM trained WHERE sequence IN (SELECT sequence FROM chosen)

-- name: drop_trained_beyond
DELETE FROM trained WHERE sequence >= :total

-- name: audit_trained
SELECT coalesce(sum(times = 1 AND NOT held_out), 0), coalesce(sum(times = 1 AND held_out), 0),
  coalesce(sum(times > 1), 0)
FROM (
  SELECT count(*) AS times, (sequence % :cycle >= :offset OR sequence >= :last) AS held_out
  FROM trained GROUP BY sequence
)

-- name: trained_twice
SELECT count(*) FROM (SELECT 1 FROM trained GROUP BY sequence HAVING count(*) > 1)

-- name: ordered_twice
SELECT count(*) FROM orders AS o, json_each(o.live) AS j
WHERE o.incarnation = :number AND o.kind = 'train' AND o.step > :after AND o.step <= :step
  AND (SELECT count(*) FROM trained WHERE trained.sequence = j.value) > 1

-- name: untrained_rows
SELECT count(*) FROM samples
WHERE sequence >= :low AND sequence < :high AND state <> 'dead'
  AND NOT EXISTS (SELECT 1 FROM trained WHERE trained.sequence = samples.sequence)

-- name: rows_in_range
SELECT count(*) FROM samples WHERE sequence >= :low AND sequence < :high

-- name: checkpoints
SELECT directory, step, store_epoch, state, manifest_digest, receipt, best FROM checkpoints WHERE garbage_of IS NULL
ORDER BY store_epoch DESC, step DESC, directory

-- name: all_checkpoints
SELECT directory, step, store_epoch, state, manifest_digest, receipt, best FROM checkpoints

-- name: checkpoint_of_digest
SELECT directory, step, incarnation, state, receipt FROM checkpoints WHERE manifest_digest = :manifest_digest

-- name: checkpoint_at
SELECT directory, weights_sha256, best FROM checkpoints WHERE state = 'committed' AND step = :step

-- name: checkpoint_in
SELECT state FROM checkpoints WHERE directory = :directory

-- name: list_checkpoint
INSERT INTO checkpoints (directory, step, store_epoch, attempt, incarnation, state)
VALUES (:directory, :step, 0, :attempt, '', 'listed') ON CONFLICT (directory) DO NOTHING

-- name: set_checkpoint
INSERT INTO checkpoints (directory, step, store_epoch, attempt, incarnation, manifest_digest, receipt, state,
  weights_sha256, nbytes, best)
VALUES (:directory, :step, :store_epoch, :attempt, :incarnation, :manifest_digest, :receipt, 'committed',
  :weights_sha256, :nbytes, :best)
ON CONFLICT (directory) DO UPDATE SET step = excluded.step, store_epoch = excluded.store_epoch,
  attempt = excluded.attempt, incarnation = excluded.incarnation, manifest_digest = excluded.manifest_digest,
  receipt = excluded.receipt, state = 'committed', weights_sha256 = excluded.weights_sha256, nbytes = excluded.nbytes,
  best = excluded.best, garbage_of = NULL
WHERE state = 'listed'

-- name: strike_checkpoint
UPDATE checkpoints SET state = 'struck' WHERE directory = :directory AND state <> 'struck'

-- name: name_garbage
UPDATE checkpoints SET garbage_of = :manifest_digest WHERE directory = :directory

-- name: garbage_of
SELECT directory FROM checkpoints WHERE garbage_of = :manifest_digest ORDER BY step, directory

-- name: unname_garbage
UPDATE checkpoints SET garbage_of = NULL WHERE directory = :directory

-- ----------------------------------------------------------------------------------------------------------- facts

-- name: add_incident
INSERT INTO incidents (klass, unit, message, detected, step, recovered, windows_replayed, serial, replaced)
VALUES (:klass, :unit, :message, :detected, :step, :recovered, :windows_replayed, :serial, :replaced)

-- name: child_exit_known
SELECT 1 FROM incidents WHERE klass = 'ChildExited' AND unit = :unit AND detected = :detected

-- name: prune_restarts_of_unit
DELETE FROM incidents WHERE klass = 'ChildExited' AND unit = :unit AND number NOT IN (
  SELECT number FROM incidents WHERE klass = 'ChildExited' AND unit = :unit ORDER BY number DESC LIMIT :keep
)

-- name: prune_restarts
DELETE FROM incidents WHERE klass = 'ChildExited' AND number NOT IN (
  SELECT number FROM incidents WHERE klass = 'ChildExited' ORDER BY number DESC LIMIT :keep
)

-- name: prune_incidents
DELETE FROM incidents WHERE number NOT IN (SELECT number FROM incidents ORDER BY number DESC LIMIT :keep)

-- name: incidents
SELECT klass, unit, message, detected, step, recovered, windows_replayed, serial, replaced FROM incidents
ORDER BY number DESC LIMIT :limit

-- name: note_replay
UPDATE incidents SET windows_replayed = :windows
WHERE windows_replayed < :windows
  AND number = (SELECT min(number) FROM incidents WHERE recovered = 0 AND unit = 'consumers')

-- name: child_replaced
UPDATE incidents SET replaced = :replaced
WHERE replaced = 0 AND klass = 'ChildExited' AND unit = :unit AND detected = :detected

-- name: producer_replaced
UPDATE incidents SET replaced = :now
WHERE replaced = 0 AND recovered = 0 AND klass = 'ChildExited' AND unit = :unit AND serial <= :serial

-- name: ranks_replaced
UPDATE incidents SET replaced = :now WHERE replaced = 0 AND recovered = 0 AND unit = 'consumers'

-- name: recover_losses
UPDATE incidents SET recovered = :now WHERE recovered = 0 AND klass IN ('SampleLost', 'LeaseExpired')

-- name: recover_others
UPDATE incidents SET recovered = :now
WHERE recovered = 0 AND klass NOT IN ('SampleLost', 'LeaseExpired') AND (klass <> 'ChildExited' OR replaced > 0)

-- name: recover_children
UPDATE incidents SET recovered = :now
WHERE recovered = 0 AND klass = 'ChildExited' AND unit <> 'consumers' AND replaced > 0

-- name: add_inexact
INSERT OR IGNORE INTO inexact (reason) VALUES (:reason)

-- name: inexact
SELECT reason FROM inexact ORDER BY rowid LIMIT :limit
