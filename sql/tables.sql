-- Facts, and nothing but facts: what was recorded, found or measured. Verdicts are computed from them by views.
-- Names and meanings that scripts outside the repository rely on are not changed here without an upgrade script.
--
-- No foreign keys: pg_restore --jobs loads the tables of an extension in any order, with their constraints in place. And
-- history stays as it was when a policy goes. The functions see to it that what they refer to is there.
--
-- Names of files are in the collation "C": with an ICU locale that sorts numbers, ranges of segments would be empty or backwards.
--
-- Operators get operands of the very types that pg_catalog has them for, such as a numeric and 0.0, not 0: else one that
-- somebody has put into the extension's schema beforehand would fit better, and run with the rights of whoever uses the table.
--
-- A column that an upgrade adds to a ledgered table must be NULL in the rows that are there, or their events no longer
-- describe them.

-- What a column may hold is a domain rather than a CHECK of each table: one list for all tables that have such a column, and
-- PostgreSQL keeps it parsed, where it parses the CHECKs of a table anew for every statement that writes to it.
CREATE DOMAIN backstop_backup_type AS text
    CHECK (VALUE IN ('full', 'incremental', 'differential', 'logical', 'globals'));
CREATE DOMAIN backstop_backup_method AS text
    CHECK (VALUE IN ('external', 'pg_basebackup', 'pg_dump', 'pg_dumpall', 'pgbackrest', 'barman', 'wal-g', 'custom'));
CREATE DOMAIN backstop_backup_status AS text CHECK (VALUE IN ('running', 'completed', 'failed', 'expired'));
CREATE DOMAIN backstop_verification AS text CHECK (VALUE IN ('unverified', 'passed', 'failed'));
CREATE DOMAIN backstop_recovery_type AS text
    CHECK (VALUE IN ('point_in_time', 'lsn', 'xid', 'name', 'immediate', 'latest', 'crash', 'failover'));
CREATE DOMAIN backstop_recovery_status AS text CHECK (VALUE IN ('running', 'completed', 'failed'));
CREATE DOMAIN backstop_origin AS text CHECK (VALUE IN ('recorded', 'detected', 'imported', 'scheduled'));
CREATE DOMAIN backstop_wal_status AS text
    CHECK (VALUE IN ('pending', 'verified', 'missing', 'corrupt', 'foreign', 'acknowledged'));
CREATE DOMAIN backstop_wal_problem AS text CHECK (VALUE IN (
    'missing', 'not_archived', 'missing_history',
    'empty', 'truncated', 'oversized', 'zeroed', 'bad_page_header', 'bad_page_address', 'bad_record_length',
    'bad_record_link', 'bad_record_crc', 'decompression_failed', 'content_differs', 'bad_history', 'unreadable',
    'foreign_system', 'foreign_timeline', 'wrong_segment', 'wrong_segment_size', 'wrong_version'));
CREATE DOMAIN backstop_life_beginning AS text CHECK (VALUE IN ('start', 'crash', 'restore', 'promotion', 'unknown'));
CREATE DOMAIN backstop_timeline AS integer CHECK (VALUE > 0);
CREATE DOMAIN backstop_count AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN backstop_seconds AS numeric CHECK (VALUE >= 0.0);
CREATE DOMAIN backstop_objective AS interval CHECK (VALUE >= interval '0');

-- Written by triggers only, when a transaction commits; verify_ledger() looks closer than constraints could.
CREATE TABLE ledger_events (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    table_name text NOT NULL,
    row_id bigint NOT NULL,
    operation text NOT NULL,
    via text NOT NULL,
    image jsonb NOT NULL,
    prev_hash bytea,
    hash bytea NOT NULL
);
COMMENT ON TABLE ledger_events IS 'append-only chain of every change of backup_policies, backup_history and recovery_history, and of every acknowledgement; check it with verify_ledger()';
COMMENT ON COLUMN ledger_events.id IS 'position in the chain: from 1, without gaps';
COMMENT ON COLUMN ledger_events.actor IS 'the session user that made the change';
COMMENT ON COLUMN ledger_events.row_id IS 'id of the row; 0 of an acknowledgement, whose image names the rows';
COMMENT ON COLUMN ledger_events.operation IS 'INSERT, UPDATE, DELETE, or ACKNOWLEDGE of what is wrong, in the table named or, for ledger_events, in the ledger itself';
COMMENT ON COLUMN ledger_events.via IS 'function: through a function of pg_backstop or its worker; sql: past them';
COMMENT ON COLUMN ledger_events.image IS 'the row after the change (DELETE: before it), without NULLs, in UTC: what ledger_image() makes of it; of an acknowledgement what was accepted, and why';
COMMENT ON COLUMN ledger_events.prev_hash IS 'hash of the event before; NULL in the first';
COMMENT ON COLUMN ledger_events.hash IS 'what ledger_hash() gives for this event';

-- Both are small, and cost nothing where an event has come through a function.
CREATE INDEX ledger_events_by_sql ON ledger_events (table_name, row_id) WHERE via = 'sql';
CREATE INDEX ledger_events_acknowledgements ON ledger_events (table_name, id) WHERE operation = 'ACKNOWLEDGE';

-- Where an acknowledgement waits for the end of its transaction to become an event. Nobody else ever sees a row of it.
CREATE TABLE ledger_pending (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    image jsonb NOT NULL,
    last_event_id bigint NOT NULL
);
COMMENT ON TABLE ledger_pending IS 'acknowledgements of the transaction under way, which become events of the ledger when it commits';

-- The one definition of an event's hash: appending and verifying use it, and so can anybody who checks from outside.
-- Any SHA-256 tool gives the same over the text of the JSON array, written as PostgreSQL writes jsonb, in UTF-8; in a database
-- whose encoding has no conversion to UTF-8, over its bytes as they are.
-- STABLE, and one expression, so that the planner puts it in place of the call.
CREATE FUNCTION ledger_hash(
    prev_hash bytea, id bigint, at timestamptz, actor text, table_name text, row_id bigint, operation text, via text, image jsonb
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.jsonb_build_array(
    pg_catalog.encode(prev_hash, 'hex'), id, (extract(epoch FROM at) * 1000000.0)::bigint, actor, table_name, row_id, operation, via, image
)::text, CASE WHEN pg_catalog.getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL') THEN 'SQL_ASCII'::name ELSE 'UTF8'::name END));
COMMENT ON FUNCTION ledger_hash(bytea, bigint, timestamptz, text, text, bigint, text, text, jsonb) IS
    'SHA-256 that chains an event of the ledger to the one before it';

-- What archived WAL has kept of the ledger's head. WAL is written once, and archived where the database's owner may not reach.
CREATE TABLE ledger_witnesses (
    segment_name text COLLATE pg_catalog."C" PRIMARY KEY,
    event_id bigint NOT NULL,
    hash bytea NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE ledger_witnesses IS 'the newest event of the ledger that each verified segment of WAL tells of; verify_ledger() checks that the chain runs through all of them';
COMMENT ON COLUMN ledger_witnesses.seen_at IS 'when the segment was first read';

CREATE TABLE backup_policies (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    policy_name text NOT NULL UNIQUE CHECK (policy_name <> ''),
    backup_type backstop_backup_type NOT NULL DEFAULT 'full',
    method backstop_backup_method NOT NULL DEFAULT 'external',
    schedule_cron text CHECK (octet_length(schedule_cron) <= 1024),
    retention_days integer NOT NULL DEFAULT 30 CHECK (retention_days >= 0),
    min_backups integer NOT NULL DEFAULT 2 CHECK (min_backups >= 0),
    database_name text,
    destination text,
    options jsonb NOT NULL DEFAULT '{}',
    target_rpo backstop_objective,
    target_rto backstop_objective,
    drill_cron text CHECK (octet_length(drill_cron) <= 1024),
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_event_id bigint NOT NULL
);
COMMENT ON TABLE backup_policies IS 'what should be backed up when, and how much loss and downtime is allowed';
COMMENT ON COLUMN backup_policies.method IS 'who takes the backup; external: somebody else runs it, pg_backstop watches';
COMMENT ON COLUMN backup_policies.schedule_cron IS 'five-field cron expression, in UTC; refused at once where it does not parse';
COMMENT ON COLUMN backup_policies.drill_cron IS 'when a restore should be rehearsed, as a cron expression in UTC';
COMMENT ON COLUMN backup_policies.target_rpo IS 'NULL: the setting pg_backstop.target_rpo holds';
COMMENT ON COLUMN backup_policies.target_rto IS 'NULL: the setting pg_backstop.target_rto holds';
COMMENT ON COLUMN backup_policies.last_event_id IS 'the ledger event that describes this row; it is made when the transaction commits, and until then 0 or less is here';

CREATE TABLE backup_history (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    policy_id bigint,
    backup_type backstop_backup_type NOT NULL,
    method backstop_backup_method NOT NULL DEFAULT 'external',
    label text,
    system_identifier bigint,
    timeline_id backstop_timeline,
    start_lsn pg_lsn,
    end_lsn pg_lsn,
    start_wal_file text COLLATE pg_catalog."C",
    end_wal_file text COLLATE pg_catalog."C",
    parent_id bigint,
    backup_path text,
    backup_size_bytes backstop_count,
    wal_bytes backstop_count,
    file_count backstop_count,
    duration_seconds backstop_seconds,
    status backstop_backup_status NOT NULL DEFAULT 'running',
    error text,
    verification backstop_verification NOT NULL DEFAULT 'unverified',
    verified_at timestamptz,
    verification_detail jsonb,
    manifest_sha256 text,
    origin backstop_origin NOT NULL DEFAULT 'recorded',
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    backup_history_file text COLLATE pg_catalog."C",
    wal_included boolean,
    is_wal_range boolean,
    last_event_id bigint NOT NULL,
    CHECK (start_lsn <= end_lsn)
);
COMMENT ON TABLE backup_history IS 'every backup that was recorded, found in the archive, imported or scheduled';
COMMENT ON COLUMN backup_history.system_identifier IS 'of the cluster that was backed up, as pg_control_system() shows it';
COMMENT ON COLUMN backup_history.start_lsn IS 'WAL that is needed to restore begins here or later; of a recorded backup the flush position when it was recorded';
COMMENT ON COLUMN backup_history.end_lsn IS 'no page of the backup is newer: replayed to here, it is consistent';
COMMENT ON COLUMN backup_history.policy_id IS 'the policy that asked for it; it may have been deleted since';
COMMENT ON COLUMN backup_history.parent_id IS 'the backup that this one builds on';
COMMENT ON COLUMN backup_history.wal_bytes IS 'end_lsn less start_lsn';
COMMENT ON COLUMN backup_history.duration_seconds IS 'as given to record_backup_complete(), else finished_at less started_at';
COMMENT ON COLUMN backup_history.origin IS 'recorded: by a call; detected: by the worker, in the archive';
COMMENT ON COLUMN backup_history.backup_history_file IS 'name of the archived .backup file that tells of this backup';
COMMENT ON COLUMN backup_history.wal_included IS 'whether the WAL from start_lsn to end_lsn was found inside it, whole and sound, when it was completed; NULL where nobody could look';
COMMENT ON COLUMN backup_history.is_wal_range IS 'true: incremental_backup() recorded it, so it is a range of WAL, and no copy of the cluster that a recovery could start from';
COMMENT ON COLUMN backup_history.last_event_id IS 'the ledger event that describes this row; it is made when the transaction commits, and until then 0 or less is here';
CREATE INDEX backup_history_running ON backup_history (started_at) WHERE status = 'running';
-- The views and the worker must not read a hundred thousand backups to tell of a few. What they ask for of all of them is in the
-- index itself; and each index holds only rows that are in their final state, so that a backup enters none of them twice.
CREATE INDEX backup_history_end ON backup_history (end_lsn, id)
    INCLUDE (start_lsn, timeline_id, backup_type, verification, system_identifier, wal_included, backup_size_bytes, parent_id)
    WHERE status = 'completed' AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE;
CREATE INDEX backup_history_needed ON backup_history (timeline_id, (CASE WHEN wal_included THEN end_lsn ELSE start_lsn END))
    INCLUDE (id, start_lsn, end_lsn, system_identifier, wal_included)
    WHERE status = 'completed' AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE AND verification <> 'failed';
CREATE INDEX backup_history_whole ON backup_history (end_lsn, id)
    WHERE status = 'completed' AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE AND wal_included;
CREATE INDEX backup_history_good ON backup_history (backup_type, finished_at DESC NULLS LAST, id DESC) INCLUDE (backup_size_bytes)
    WHERE status = 'completed' AND verification <> 'failed';
CREATE INDEX backup_history_policy ON backup_history (policy_id, finished_at DESC NULLS LAST, id DESC)
    WHERE status = 'completed' AND verification <> 'failed';
CREATE INDEX backup_history_detected ON backup_history (backup_type, finished_at DESC NULLS LAST, id DESC)
    WHERE status = 'completed' AND verification <> 'failed' AND policy_id IS NULL AND origin = 'detected';
CREATE INDEX backup_history_failed ON backup_history (backup_type, finished_at DESC NULLS LAST, id DESC)
    WHERE status = 'failed' OR verification = 'failed';
CREATE INDEX backup_history_expired ON backup_history (backup_type) WHERE status = 'expired';
CREATE INDEX backup_history_policy_failed ON backup_history (policy_id, finished_at DESC NULLS LAST, id DESC)
    WHERE status = 'failed' OR verification = 'failed';

CREATE TABLE recovery_history (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    recovery_type backstop_recovery_type NOT NULL,
    origin backstop_origin NOT NULL DEFAULT 'recorded',
    is_drill boolean NOT NULL DEFAULT false,
    backup_id bigint,
    target_time timestamptz,
    target_lsn pg_lsn,
    target_name text,
    target_xid bigint CHECK (target_xid > 0),
    target_timeline backstop_timeline,
    start_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    end_time timestamptz,
    duration_seconds backstop_seconds,
    restore_seconds backstop_seconds,
    replay_seconds backstop_seconds,
    startup_seconds backstop_seconds,
    wal_replayed_bytes backstop_count,
    failure_time timestamptz,
    recovered_to_time timestamptz,
    recovered_to_lsn pg_lsn,
    status backstop_recovery_status NOT NULL DEFAULT 'running',
    rto_seconds backstop_seconds,
    rpo_seconds backstop_seconds,
    predicted_rto_seconds backstop_seconds,
    checks jsonb,
    error text,
    last_event_id bigint NOT NULL
);
COMMENT ON TABLE recovery_history IS 'every recovery and every rehearsal of one, with what it took and what it lost';
COMMENT ON COLUMN recovery_history.backup_id IS 'the backup that it started from';
COMMENT ON COLUMN recovery_history.is_drill IS 'a rehearsal: no server was down';
COMMENT ON COLUMN recovery_history.failure_time IS 'when the server that was recovered had failed';
COMMENT ON COLUMN recovery_history.recovered_to_time IS 'time of the last commit that was recovered';
COMMENT ON COLUMN recovery_history.rto_seconds IS 'from start_time to end_time, of a completed recovery';
COMMENT ON COLUMN recovery_history.rpo_seconds IS 'from the last recovered commit to the target or the failure; NULL where either is unknown';
COMMENT ON COLUMN recovery_history.restore_seconds IS 'copying the backup back';
COMMENT ON COLUMN recovery_history.replay_seconds IS 'replaying WAL';
COMMENT ON COLUMN recovery_history.origin IS 'recorded: by calls; detected: by the worker, from the traces that the recovery left';
COMMENT ON COLUMN recovery_history.wal_replayed_bytes IS 'from where the WAL of the backup begins, or where replay began, to recovered_to_lsn';
COMMENT ON COLUMN recovery_history.startup_seconds IS 'from the end of replay until the server accepted writes';
COMMENT ON COLUMN recovery_history.predicted_rto_seconds IS 'what rto_seconds was expected to be before the recovery began';
COMMENT ON COLUMN recovery_history.checks IS 'for a column its evidence, or why it is NULL, in a sentence each';
COMMENT ON COLUMN recovery_history.last_event_id IS 'the ledger event that describes this row; it is made when the transaction commits, and until then 0 or less is here';

CREATE INDEX recovery_history_open ON recovery_history (start_time) WHERE status = 'running';

-- Not ledgered: nobody but the worker has anything to say here, save an adoption, and that becomes an event.
CREATE TABLE server_lives (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    system_identifier bigint NOT NULL,
    timeline_id backstop_timeline NOT NULL,
    began backstop_life_beginning NOT NULL,
    started_at timestamptz NOT NULL,
    writes_at timestamptz NOT NULL,
    host_name text NOT NULL,
    data_directory text NOT NULL,
    directory_identity text NOT NULL,
    predecessor_id bigint,
    copy_of_id bigint,
    recovery_id bigint,
    backup_id bigint,
    backup_label text,
    backup_start_lsn pg_lsn,
    recovered_to_lsn pg_lsn,
    recovered_to_time timestamptz,
    adopted_at timestamptz,
    adopted_by text,
    adoption_reason text,
    UNIQUE (system_identifier, started_at, timeline_id)
);
COMMENT ON TABLE server_lives IS 'the lives of the server, each from a start, crash restart or promotion to the next, written when it accepts writes; without shared_preload_libraries none is known';
COMMENT ON COLUMN server_lives.began IS 'start: nothing was to be recovered; crash: after a crash; restore: from a backup; promotion: of a standby';
COMMENT ON COLUMN server_lives.started_at IS 'when the postmaster started, or restarted after the crash of one of its processes';
COMMENT ON COLUMN server_lives.writes_at IS 'when it was first seen to accept writes';
COMMENT ON COLUMN server_lives.directory_identity IS 'device and inode of the data directory';
COMMENT ON COLUMN server_lives.predecessor_id IS 'the life before in this data, wherever that was';
COMMENT ON COLUMN server_lives.copy_of_id IS 'the life that this one is a copy of, running in another place; later lives of the copy have it too';
COMMENT ON COLUMN server_lives.recovery_id IS 'the row of recovery_history that it began with';
COMMENT ON COLUMN server_lives.adopted_at IS 'when adopt_cluster() made the copy the cluster itself';

CREATE TABLE wal_archive (
    segment_name text COLLATE pg_catalog."C" PRIMARY KEY,
    timeline_id backstop_timeline,
    start_lsn pg_lsn,
    end_lsn pg_lsn,
    status backstop_wal_status NOT NULL,
    problem backstop_wal_problem,
    detail text,
    stored_path text,
    stored_bytes backstop_count,
    sha256 text,
    first_commit_at timestamptz,
    last_commit_at timestamptz,
    commit_count backstop_count,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    verified_at timestamptz,
    stored_changed_at timestamptz,
    handover bytea,
    record_count backstop_count,
    data_bytes backstop_count,
    latest_xact_at timestamptz,
    last_record_lsn pg_lsn,
    lowest_xid bigint,
    highest_xid bigint,
    sound_sha256 text,
    system_identifier bigint,
    status_since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE wal_archive IS 'one row for each archived segment, timeline history and backup history file: what verification found';
COMMENT ON COLUMN wal_archive.start_lsn IS 'NULL for a timeline history file';
COMMENT ON COLUMN wal_archive.problem IS 'what is wrong, where the status is missing, corrupt or foreign; kept when it is acknowledged';
COMMENT ON COLUMN wal_archive.detail IS 'what was found where, and what was expected; who acknowledged it, and why';
COMMENT ON COLUMN wal_archive.status_since IS 'when it came to have this status and problem';
COMMENT ON COLUMN wal_archive.first_commit_at IS 'time of the first commit in the segment; NULL where there is none';
COMMENT ON COLUMN wal_archive.stored_changed_at IS 'when the stored file was last changed (its ctime): a later one means that it must be looked at again';
COMMENT ON COLUMN wal_archive.data_bytes IS 'bytes of WAL in it: a segment, or less where a switch ended it early';
COMMENT ON COLUMN wal_archive.latest_xact_at IS 'latest time of a commit or abort in it: recovery_target_time is compared with those';
COMMENT ON COLUMN wal_archive.last_record_lsn IS 'start of the last record of it that recovery can replay; of a corrupt one, of the last before the fault';
COMMENT ON COLUMN wal_archive.lowest_xid IS 'the oldest transaction that commits in it, 32 bits without the epoch; greater than highest_xid where numbers wrap around in between';
COMMENT ON COLUMN wal_archive.highest_xid IS 'the newest transaction that commits in it, likewise';
COMMENT ON COLUMN wal_archive.sound_sha256 IS 'SHA-256 of the content that was verified first, or that is in pg_wal: any other content under this name is not the segment';
COMMENT ON COLUMN wal_archive.system_identifier IS 'of the cluster whose archive was looked at: what a dump brings into another cluster is forgotten there';
COMMENT ON COLUMN wal_archive.handover IS 'what verifying the next segment needs to know of the end of this one';
CREATE INDEX wal_archive_position ON wal_archive (timeline_id, end_lsn);
-- A cluster at rest archives segments without a commit for years.
CREATE INDEX wal_archive_commits ON wal_archive (timeline_id, end_lsn) WHERE status = 'verified' AND last_commit_at IS NOT NULL;
CREATE INDEX wal_archive_text ON wal_archive (segment_name) WHERE start_lsn IS NULL;
CREATE INDEX wal_archive_verified_at ON wal_archive (verified_at) WHERE status = 'verified' AND start_lsn IS NOT NULL;
CREATE INDEX wal_archive_not_verified ON wal_archive (timeline_id, start_lsn) WHERE status <> 'verified';

CREATE TABLE restore_points (
    name text COLLATE pg_catalog."C" NOT NULL,
    lsn pg_lsn NOT NULL,
    created_at timestamptz NOT NULL,
    timeline_id backstop_timeline NOT NULL,
    segment_name text COLLATE pg_catalog."C" NOT NULL,
    PRIMARY KEY (timeline_id, lsn)
);
COMMENT ON TABLE restore_points IS 'named restore points that were seen in verified WAL: recovery_target_name can reach them';
COMMENT ON COLUMN restore_points.lsn IS 'where the record of the restore point ends: a recovery to it stops there';
CREATE INDEX restore_points_name ON restore_points (name);
CREATE INDEX restore_points_segment ON restore_points (segment_name);

-- Unlogged: what a crash takes is not worth WAL on a cluster whose WAL is being watched.
CREATE UNLOGGED TABLE recovery_samples (
    sampled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    rpo_seconds numeric,
    rpo_bytes bigint,
    predicted_rto_seconds numeric,
    protected_lsn pg_lsn,
    flush_lsn pg_lsn,
    archived_lsn pg_lsn,
    streamed_lsn pg_lsn,
    unverified_segments bigint,
    ready_segments bigint
);
COMMENT ON TABLE recovery_samples IS 'how well the cluster was protected, one row for each tick of the worker in which anything changed';
CREATE INDEX recovery_samples_time ON recovery_samples (sampled_at);

-- What is left of the samples for good. Each sample adds, in its own transaction, the time since the one before, so a row is
-- complete up to counted_to, whatever becomes of the samples.
CREATE TABLE recovery_hourly (
    hour timestamptz NOT NULL,
    counted_to timestamptz NOT NULL,
    sample_count backstop_count NOT NULL,
    observed_seconds backstop_seconds NOT NULL,
    rpo_inside_seconds backstop_seconds NOT NULL,
    rpo_outside_seconds backstop_seconds NOT NULL,
    rto_inside_seconds backstop_seconds NOT NULL,
    rto_outside_seconds backstop_seconds NOT NULL,
    unprotected_seconds backstop_seconds NOT NULL,
    measured_seconds backstop_seconds NOT NULL,
    avg_rpo_seconds backstop_seconds,
    worst_rpo_seconds backstop_seconds,
    worst_rpo_bytes backstop_count,
    worst_predicted_rto_seconds backstop_seconds,
    system_identifier bigint NOT NULL,
    PRIMARY KEY (hour, system_identifier)
);
COMMENT ON TABLE recovery_hourly IS 'how much of each hour was inside the objectives that held then, and the worst that was seen; kept for 400 days';
COMMENT ON COLUMN recovery_hourly.hour IS 'the full hour, in UTC, at which it begins';
COMMENT ON COLUMN recovery_hourly.counted_to IS 'up to where the hour is summed up; no moment before it is counted again';
COMMENT ON COLUMN recovery_hourly.observed_seconds IS 'how long the worker watched; the rest of the hour counts neither as inside nor as outside';
COMMENT ON COLUMN recovery_hourly.rpo_outside_seconds IS 'the exposure was greater than the objective, or nothing protected';
COMMENT ON COLUMN recovery_hourly.unprotected_seconds IS 'there was no usable backup and no receiver that counts';
COMMENT ON COLUMN recovery_hourly.measured_seconds IS 'how long the exposure was known: what avg_rpo_seconds is the mean of';
COMMENT ON COLUMN recovery_hourly.system_identifier IS 'of the cluster that was watched: what a dump brings into another one does not count there';

-- Everything but the samples goes through pg_dump, sequences with their values.
SELECT pg_catalog.pg_extension_config_dump('ledger_events', '');
SELECT pg_catalog.pg_extension_config_dump('ledger_witnesses', '');
SELECT pg_catalog.pg_extension_config_dump('backup_policies', '');
SELECT pg_catalog.pg_extension_config_dump('backup_policies_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backup_history', '');
SELECT pg_catalog.pg_extension_config_dump('backup_history_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('recovery_history', '');
SELECT pg_catalog.pg_extension_config_dump('recovery_history_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('server_lives', '');
SELECT pg_catalog.pg_extension_config_dump('server_lives_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('wal_archive', '');
SELECT pg_catalog.pg_extension_config_dump('restore_points', '');
SELECT pg_catalog.pg_extension_config_dump('recovery_hourly', '');
