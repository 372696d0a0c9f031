-- One row for each policy. A base backup that the worker found in the archive has no policy of its own: it counts for every
-- policy of its type, so that a policy can watch what somebody else runs.
CREATE VIEW v_policy_status AS
SELECT
    policy.id AS policy_id,
    policy.policy_name,
    policy.backup_type,
    policy.method,
    policy.enabled,
    good.id AS last_good_id,
    good.finished_at AS last_good_at,
    pg_catalog.clock_timestamp() - good.finished_at AS last_good_age,
    failed.id AS last_failed_id,
    failed.finished_at AS last_failed_at,
    failed.error AS last_failed_error,
    coalesce(counts.running, 0) AS running_count,
    policy.schedule_cron,
    due.next_due,
    policy.enabled AND coalesce(due.next_due < pg_catalog.clock_timestamp(), false) AS overdue,
    policy.drill_cron,
    drill.last_drill_at,
    due.drill_due,
    policy.enabled AND coalesce(due.drill_due < pg_catalog.clock_timestamp(), false) AS drill_overdue,
    policy.retention_days,
    policy.min_backups,
    coalesce(counts.good, 0) AS good_count,
    greatest(0, least(coalesce(counts.outlived, 0), coalesce(counts.good, 0) - policy.min_backups)) AS expendable_count
FROM backup_policies AS policy
LEFT JOIN LATERAL (
    SELECT
        pg_catalog.count(*) FILTER (WHERE backup.status = 'running') AS running,
        pg_catalog.count(*) FILTER (WHERE backup.status = 'completed' AND backup.verification <> 'failed') AS good,
        pg_catalog.count(*) FILTER (
            WHERE backup.status = 'completed' AND backup.verification <> 'failed'
                AND backup.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(days => policy.retention_days)
        ) AS outlived
    FROM backup_history AS backup
    WHERE backup.policy_id = policy.id
        OR (backup.policy_id IS NULL AND backup.origin = 'detected' AND backup.backup_type = policy.backup_type)
) AS counts ON true
LEFT JOIN LATERAL (
    SELECT backup.id, backup.started_at, backup.finished_at FROM backup_history AS backup
    WHERE (backup.policy_id = policy.id
            OR (backup.policy_id IS NULL AND backup.origin = 'detected' AND backup.backup_type = policy.backup_type))
        AND backup.status = 'completed' AND backup.verification <> 'failed'
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS good ON true
LEFT JOIN LATERAL (
    SELECT backup.id, backup.finished_at, backup.error FROM backup_history AS backup
    WHERE backup.policy_id = policy.id
        AND (backup.status = 'failed' OR (backup.status = 'completed' AND backup.verification = 'failed'))
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS failed ON true
LEFT JOIN LATERAL (
    SELECT pg_catalog.max(recovery.start_time) AS last_drill_at
    FROM recovery_history AS recovery
    JOIN backup_history AS backup ON backup.id = recovery.backup_id
    WHERE backup.policy_id = policy.id AND recovery.is_drill AND recovery.status = 'completed'
) AS drill ON true
CROSS JOIN LATERAL (
    SELECT
        cron_next(policy.schedule_cron, coalesce(good.started_at, policy.created_at)) AS next_due,
        cron_next(policy.drill_cron, coalesce(drill.last_drill_at, policy.created_at)) AS drill_due
) AS due;
COMMENT ON VIEW v_policy_status IS 'for each policy: the last good and the last failed backup, when the next is due, and what retention makes of them';
COMMENT ON COLUMN v_policy_status.next_due IS 'the first moment of the schedule after the last good backup began; in the past: overdue';
COMMENT ON COLUMN v_policy_status.drill_due IS 'the first moment of the drill schedule after the last completed rehearsal with a backup of this policy';
COMMENT ON COLUMN v_policy_status.expendable_count IS 'good backups older than retention_days, less those that min_backups keeps';
