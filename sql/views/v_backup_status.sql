-- One row for each type of backup that there is, or that a policy asks for.
CREATE VIEW v_backup_status AS
SELECT
    types.backup_type,
    good.id AS last_good_id,
    good.finished_at AS last_good_at,
    pg_catalog.clock_timestamp() - good.finished_at AS last_good_age,
    good.backup_size_bytes AS last_good_size_bytes,
    good.duration_seconds AS last_good_duration_seconds,
    good.backup_path AS last_good_path,
    good.verification AS last_good_verification,
    failed.id AS last_failed_id,
    failed.finished_at AS last_failed_at,
    failed.error AS last_failed_error,
    coalesce(counts.running, 0) AS running_count,
    counts.running_since,
    coalesce(counts.completed, 0) AS completed_count,
    coalesce(counts.failed, 0) AS failed_count,
    counts.total_size_bytes
FROM (
    SELECT backup_type FROM backup_history
    UNION
    SELECT backup_type FROM backup_policies WHERE enabled
) AS types
LEFT JOIN (
    SELECT
        backup_type,
        pg_catalog.count(*) FILTER (WHERE status = 'running') AS running,
        pg_catalog.min(started_at) FILTER (WHERE status = 'running') AS running_since,
        pg_catalog.count(*) FILTER (WHERE status = 'completed') AS completed,
        pg_catalog.count(*) FILTER (WHERE status = 'failed') AS failed,
        pg_catalog.sum(backup_size_bytes) FILTER (WHERE status = 'completed') AS total_size_bytes
    FROM backup_history
    GROUP BY backup_type
) AS counts USING (backup_type)
LEFT JOIN LATERAL (
    SELECT * FROM backup_history AS backup
    WHERE backup.backup_type = types.backup_type AND backup.status = 'completed' AND backup.verification <> 'failed'
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS good ON true
LEFT JOIN LATERAL (
    SELECT * FROM backup_history AS backup
    WHERE backup.backup_type = types.backup_type
        AND (backup.status = 'failed' OR (backup.status = 'completed' AND backup.verification = 'failed'))
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS failed ON true;
COMMENT ON VIEW v_backup_status IS 'for each type of backup: the last good and the last failed one, what runs now, counts and sizes';
COMMENT ON COLUMN v_backup_status.last_good_at IS 'when the newest backup ended that was completed and has not failed its verification';
