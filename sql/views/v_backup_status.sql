-- One row for each type of backup that there is, or that a policy asks for.
CREATE VIEW v_backup_status AS
WITH RECURSIVE good_types AS (
    -- One look into an index for each type, however many backups there are.
    (SELECT backup_type FROM backup_history
      WHERE status = 'completed' AND verification <> 'failed' ORDER BY backup_type LIMIT 1)
    UNION ALL
    SELECT (SELECT backup.backup_type FROM backup_history AS backup
             WHERE backup.status = 'completed' AND backup.verification <> 'failed' AND backup.backup_type > good_types.backup_type
             ORDER BY backup.backup_type LIMIT 1)
    FROM good_types
    WHERE good_types.backup_type IS NOT NULL
), good AS (
    -- Read from an index alone: it holds the good ones and their sizes.
    SELECT good_types.backup_type, counted.completed, counted.total_size_bytes
    -- There are not that many types: said so that the planner does not compile a plan for a hundred of them.
    FROM (SELECT * FROM good_types WHERE backup_type IS NOT NULL LIMIT 10) AS good_types
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS completed, pg_catalog.sum(backup.backup_size_bytes) AS total_size_bytes
        FROM backup_history AS backup
        WHERE backup.backup_type = good_types.backup_type AND backup.status = 'completed' AND backup.verification <> 'failed'
    ) AS counted
), bad AS (
    SELECT
        backup_type,
        pg_catalog.count(*) FILTER (WHERE status = 'failed') AS failed,
        pg_catalog.count(*) FILTER (WHERE status = 'completed') AS completed,
        pg_catalog.sum(backup_size_bytes) FILTER (WHERE status = 'completed') AS total_size_bytes
    FROM backup_history
    WHERE status = 'failed' OR verification = 'failed'
    GROUP BY backup_type
), under_way AS (
    SELECT backup_type, pg_catalog.count(*) AS running, pg_catalog.min(started_at) AS running_since
    FROM backup_history
    WHERE status = 'running'
    GROUP BY backup_type
), types AS (
    SELECT backup_type FROM good
    UNION
    SELECT backup_type FROM bad
    UNION
    SELECT backup_type FROM under_way
    UNION
    SELECT backup_type FROM backup_history WHERE status = 'expired'
    UNION
    SELECT backup_type FROM backup_policies WHERE enabled
)
SELECT
    types.backup_type,
    newest_good.id AS last_good_id,
    newest_good.finished_at AS last_good_at,
    pg_catalog.clock_timestamp() - newest_good.finished_at AS last_good_age,
    newest_good.backup_size_bytes AS last_good_size_bytes,
    newest_good.duration_seconds AS last_good_duration_seconds,
    newest_good.backup_path AS last_good_path,
    newest_good.verification AS last_good_verification,
    newest_bad.id AS last_failed_id,
    newest_bad.finished_at AS last_failed_at,
    newest_bad.error AS last_failed_error,
    coalesce(under_way.running, 0) AS running_count,
    under_way.running_since,
    coalesce(good.completed, 0) + coalesce(bad.completed, 0) AS completed_count,
    coalesce(bad.failed, 0) AS failed_count,
    coalesce(good.total_size_bytes + bad.total_size_bytes, good.total_size_bytes, bad.total_size_bytes) AS total_size_bytes
FROM types
LEFT JOIN good USING (backup_type)
LEFT JOIN bad USING (backup_type)
LEFT JOIN under_way USING (backup_type)
LEFT JOIN LATERAL (
    SELECT * FROM backup_history AS backup
    WHERE backup.backup_type = types.backup_type AND backup.status = 'completed' AND backup.verification <> 'failed'
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS newest_good ON true
LEFT JOIN LATERAL (
    SELECT * FROM backup_history AS backup
    WHERE backup.backup_type = types.backup_type
        AND (backup.status = 'failed' OR backup.verification = 'failed')
        AND backup.status IN ('failed', 'completed')
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS newest_bad ON true;
COMMENT ON VIEW v_backup_status IS 'for each type of backup: the last good and the last failed one, what runs now, counts and sizes';
COMMENT ON COLUMN v_backup_status.last_good_at IS 'when the newest backup ended that was completed and has not failed its verification';
