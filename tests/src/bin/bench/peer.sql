-- What somebody would write in PL/pgSQL for the same contract: the calls, their checks, and the chain of hashes.
CREATE SCHEMA peer;

CREATE TABLE peer.ledger_events (LIKE backstop.ledger_events INCLUDING ALL);
CREATE TABLE peer.backup_policies (LIKE backstop.backup_policies INCLUDING ALL,
    FOREIGN KEY (last_event_id) REFERENCES peer.ledger_events);
CREATE TABLE peer.backup_history (LIKE backstop.backup_history INCLUDING ALL,
    FOREIGN KEY (policy_id) REFERENCES peer.backup_policies, FOREIGN KEY (last_event_id) REFERENCES peer.ledger_events);

-- The cluster runs in UTC, so the image needs no setting of its own.
CREATE FUNCTION peer.ledger_append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head record;
    image jsonb := jsonb_strip_nulls(to_jsonb(NEW)) - 'last_event_id';
    moment timestamptz := clock_timestamp();
BEGIN
    PERFORM pg_advisory_xact_lock(1);
    SELECT e.id, e.hash INTO head FROM peer.ledger_events e ORDER BY e.id DESC LIMIT 1;
    NEW.last_event_id := coalesce(head.id, 0) + 1;
    INSERT INTO peer.ledger_events (id, at, actor, table_name, row_id, operation, via, image, prev_hash, hash)
    VALUES (NEW.last_event_id, moment, session_user, TG_TABLE_NAME, NEW.id, TG_OP, 'function', image, head.hash,
            backstop.ledger_hash(head.hash, NEW.last_event_id, moment, session_user::text, TG_TABLE_NAME::text, NEW.id, TG_OP,
                                 'function', image));
    RETURN NEW;
END $$;

CREATE FUNCTION peer.ledger_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1);
    RETURN NULL;
END $$;

CREATE TRIGGER ledger_lock BEFORE INSERT OR UPDATE OR DELETE ON peer.backup_history
    FOR EACH STATEMENT EXECUTE FUNCTION peer.ledger_lock();
CREATE TRIGGER ledger_append BEFORE INSERT OR UPDATE ON peer.backup_history
    FOR EACH ROW EXECUTE FUNCTION peer.ledger_append();

CREATE FUNCTION peer.record_backup_start(
    backup_type text DEFAULT 'full', backup_path text DEFAULT NULL, policy_name text DEFAULT NULL, label text DEFAULT NULL
) RETURNS TABLE (backup_id bigint, start_lsn pg_lsn) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    policy record;
    bound timestamptz := greatest(pg_postmaster_start_time(), clock_timestamp() - interval '24 hours');
    lsn pg_lsn;
    file text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE 'cannot execute record_backup_start() during recovery' USING ERRCODE = '25006';
    END IF;
    IF record_backup_start.backup_type IS NULL
        OR record_backup_start.backup_type NOT IN ('full', 'incremental', 'differential', 'logical', 'globals')
    THEN
        RAISE 'invalid backup_type: %', record_backup_start.backup_type USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(1);
    IF EXISTS (SELECT FROM peer.backup_history b WHERE b.status = 'running' AND b.started_at < bound) THEN
        UPDATE peer.backup_history SET status = 'failed', finished_at = clock_timestamp(), error = 'nobody recorded its end'
        WHERE status = 'running' AND started_at < bound;
    END IF;
    IF record_backup_start.policy_name IS NOT NULL THEN
        SELECT p.id, p.method INTO policy FROM peer.backup_policies p WHERE p.policy_name = record_backup_start.policy_name;
        IF NOT FOUND THEN
            RAISE 'backup policy "%" does not exist', record_backup_start.policy_name USING ERRCODE = '42704';
        END IF;
    ELSE
        SELECT NULL::bigint AS id, NULL::text AS method INTO policy;
    END IF;
    lsn := pg_current_wal_flush_lsn();
    file := pg_walfile_name(lsn + 1);
    RETURN QUERY
    INSERT INTO peer.backup_history
        (policy_id, backup_type, method, label, system_identifier, timeline_id, start_lsn, start_wal_file, backup_path)
    SELECT policy.id, record_backup_start.backup_type, coalesce(policy.method, 'external'), record_backup_start.label,
           control.system_identifier, ('x' || left(file, 8))::bit(32)::integer, lsn, file, record_backup_start.backup_path
    FROM pg_control_system() AS control
    RETURNING backup_history.id, lsn;
END $$;

CREATE FUNCTION peer.record_backup_complete(
    ended bigint, size_bytes bigint DEFAULT NULL, seconds numeric DEFAULT NULL,
    ending text DEFAULT 'completed', reason text DEFAULT NULL
) RETURNS TABLE (backup_id bigint, status text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    known record;
    lsn pg_lsn;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE 'cannot execute record_backup_complete() during recovery' USING ERRCODE = '25006';
    END IF;
    IF ended IS NULL THEN
        RAISE 'backup_id must not be null' USING ERRCODE = '22004';
    END IF;
    IF ending IS NULL OR ending NOT IN ('completed', 'failed') THEN
        RAISE 'invalid status: %', ending USING ERRCODE = '22023';
    END IF;
    IF size_bytes < 0 OR seconds < 0 OR seconds = 'NaN' THEN
        RAISE 'a size or duration must not be negative' USING ERRCODE = '22023';
    END IF;
    IF reason IS NOT NULL AND ending = 'completed' THEN
        RAISE 'a completed backup has no error' USING ERRCODE = '22023';
    END IF;
    SELECT b.status, b.started_at, b.started_at < pg_postmaster_start_time() AS restarted INTO known
    FROM peer.backup_history b WHERE b.id = ended;
    IF NOT FOUND THEN
        RAISE 'backup % does not exist', ended USING ERRCODE = '02000';
    END IF;
    IF known.status <> 'running' OR known.restarted THEN
        RAISE 'backup % is not running', ended USING ERRCODE = '55000';
    END IF;
    PERFORM pg_advisory_xact_lock(1);
    lsn := pg_current_wal_flush_lsn();
    UPDATE peer.backup_history b
    SET status = ending, error = reason, backup_size_bytes = size_bytes,
        duration_seconds = coalesce(seconds, round(extract(epoch FROM clock.now - b.started_at), 3)),
        end_lsn = coalesce(b.end_lsn, lsn),
        end_wal_file = CASE WHEN b.end_lsn IS NULL THEN pg_walfile_name(lsn - 1) ELSE b.end_wal_file END,
        wal_bytes = (coalesce(b.end_lsn, lsn) - b.start_lsn)::bigint,
        finished_at = clock.now
    FROM (SELECT clock_timestamp() AS now) AS clock
    WHERE b.id = ended AND b.status = 'running';
    IF NOT FOUND THEN
        RAISE 'backup % is not running', ended USING ERRCODE = '55000';
    END IF;
    RETURN QUERY SELECT ended, ending;
END $$;
