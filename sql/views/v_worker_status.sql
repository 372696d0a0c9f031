-- One row a worker. What it does comes from shared memory, so a standby answers too.
CREATE VIEW v_worker_status AS
SELECT w.pid, w.database, w.state, w.last_tick_at,
       w.last_verified_segment COLLATE pg_catalog."C" AS last_verified_segment, w.unverified_segments,
       w.bytes_per_second, w.last_error, w.archive_source, w.cluster_role, w.clone_of,
       w.ledger_head_id, w.ledger_head_hash
  FROM @extschema@.worker_status() w;

COMMENT ON VIEW v_worker_status IS
'What the background worker is doing, since when, and why its last tick failed if it did.';
COMMENT ON COLUMN v_worker_status.cluster_role IS
'primary, standby, recovering, or clone: a copy of a cluster that runs in another place, until adopt_cluster() says otherwise; as of the last tick.';
COMMENT ON COLUMN v_worker_status.clone_of IS
'Of a clone: of which cluster, from which backup, recovered to what, and since when.';
COMMENT ON COLUMN v_worker_status.ledger_head_id IS
'The newest event of the ledger, as of the last tick: with ledger_head_hash what verify_ledger(known_id, known_hash) takes.';
