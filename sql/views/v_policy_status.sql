-- One row for each policy. A base backup that the worker found in the archive has no policy of its own: it counts for every
-- policy of its type, so that a policy can watch what somebody else runs.
CREATE VIEW v_policy_status AS
WITH detected AS MATERIALIZED (
    -- Once for all policies that watch the same.
    SELECT watched.backup_type, watched.retention_days, counted.good, counted.outlived
    FROM (
        SELECT DISTINCT
            policy.backup_type,
            policy.retention_days,
            pg_catalog.now() - pg_catalog.make_interval(days => policy.retention_days) AS kept_since
        FROM backup_policies AS policy
    ) AS watched
    CROSS JOIN LATERAL (
        SELECT
            pg_catalog.count(*) AS good,
            pg_catalog.count(*) FILTER (WHERE backup.finished_at < watched.kept_since) AS outlived
        FROM backup_history AS backup
        WHERE backup.backup_type = watched.backup_type AND backup.policy_id IS NULL AND backup.origin = 'detected'
            AND backup.status = 'completed' AND backup.verification <> 'failed'
    ) AS counted
), drills AS (
    SELECT drill.policy_id, pg_catalog.max(drill.start_time) AS last_drill_at
    FROM (
        SELECT
            recovery.start_time,
            (SELECT backup.policy_id FROM backup_history AS backup WHERE backup.id = recovery.backup_id) AS policy_id
        FROM recovery_history AS recovery
        WHERE recovery.is_drill AND recovery.status = 'completed'
    ) AS drill
    GROUP BY drill.policy_id
)
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
    open.running AS running_count,
    policy.schedule_cron,
    due.next_due,
    policy.enabled AND coalesce(due.next_due < pg_catalog.clock_timestamp(), false) AS overdue,
    policy.drill_cron,
    drill.last_drill_at,
    due.drill_due,
    policy.enabled AND coalesce(due.drill_due < pg_catalog.clock_timestamp(), false) AS drill_overdue,
    policy.retention_days,
    policy.min_backups,
    counts.good AS good_count,
    greatest(0, least(counts.outlived, counts.good - policy.min_backups)) AS expendable_count,
    targets.rpo AS target_rpo,
    targets.rto AS target_rto,
    CASE WHEN NOT cluster.is_protected AND targets.rpo IS NOT NULL THEN false
         ELSE pg_catalog.make_interval(secs => cluster.rpo_seconds) <= targets.rpo END AS rpo_met,
    pg_catalog.make_interval(secs => cluster.predicted_rto_seconds) <= targets.rto AS rto_met
FROM backup_policies AS policy
CROSS JOIN (SELECT * FROM current_objectives() LIMIT 1) AS cluster
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS running
    FROM backup_history AS backup
    WHERE backup.status = 'running'
        AND (backup.policy_id = policy.id
             OR backup.policy_id IS NULL AND backup.origin = 'detected' AND backup.backup_type = policy.backup_type)
) AS open
CROSS JOIN LATERAL (
    -- OFFSET 0, so that it is computed once, not for every backup.
    SELECT pg_catalog.now() - pg_catalog.make_interval(days => policy.retention_days) AS since OFFSET 0
) AS kept
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS good, pg_catalog.count(*) FILTER (WHERE backup.finished_at < kept.since) AS outlived
    FROM backup_history AS backup
    WHERE backup.policy_id = policy.id AND backup.status = 'completed' AND backup.verification <> 'failed'
) AS own
LEFT JOIN detected ON detected.backup_type = policy.backup_type AND detected.retention_days = policy.retention_days
CROSS JOIN LATERAL (
    SELECT
        own.good + coalesce(detected.good, 0) AS good,
        own.outlived + coalesce(detected.outlived, 0) AS outlived
) AS counts
LEFT JOIN LATERAL (
    SELECT newest.id, newest.started_at, newest.finished_at
    FROM (
        (SELECT backup.id, backup.started_at, backup.finished_at FROM backup_history AS backup
          WHERE backup.policy_id = policy.id AND backup.status = 'completed' AND backup.verification <> 'failed'
          ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC LIMIT 1)
        UNION ALL
        (SELECT backup.id, backup.started_at, backup.finished_at FROM backup_history AS backup
          WHERE backup.policy_id IS NULL AND backup.origin = 'detected' AND backup.backup_type = policy.backup_type
              AND backup.status = 'completed' AND backup.verification <> 'failed'
          ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC LIMIT 1)
    ) AS newest
    ORDER BY newest.finished_at DESC NULLS LAST, newest.id DESC
    LIMIT 1
) AS good ON true
LEFT JOIN LATERAL (
    SELECT backup.id, backup.finished_at, backup.error FROM backup_history AS backup
    WHERE backup.policy_id = policy.id
        AND (backup.status = 'failed' OR backup.verification = 'failed')
        AND backup.status IN ('failed', 'completed')
    ORDER BY backup.finished_at DESC NULLS LAST, backup.id DESC
    LIMIT 1
) AS failed ON true
LEFT JOIN drills AS drill ON drill.policy_id = policy.id
CROSS JOIN LATERAL (
    SELECT
        cron_next(policy.schedule_cron, coalesce(good.started_at, policy.created_at)) AS next_due,
        cron_next(policy.drill_cron, coalesce(drill.last_drill_at, policy.created_at)) AS drill_due
) AS due
CROSS JOIN LATERAL (
    SELECT
        nullif(coalesce(policy.target_rpo, pg_catalog.make_interval(secs => cluster.target_rpo_seconds)), interval '0') AS rpo,
        nullif(coalesce(policy.target_rto, pg_catalog.make_interval(secs => cluster.target_rto_seconds)), interval '0') AS rto
) AS targets;
COMMENT ON VIEW v_policy_status IS 'for each policy: the last good and the last failed backup, when the next is due, and what retention makes of them';
COMMENT ON COLUMN v_policy_status.next_due IS 'the first moment of the schedule after the last good backup began; in the past: overdue';
COMMENT ON COLUMN v_policy_status.drill_due IS 'the first moment of the drill schedule after the last completed rehearsal with a backup of this policy';
COMMENT ON COLUMN v_policy_status.expendable_count IS 'good backups older than retention_days, less those that min_backups keeps';
COMMENT ON COLUMN v_policy_status.target_rpo IS 'the policy''s own objective, else the cluster''s; NULL where there is none';
COMMENT ON COLUMN v_policy_status.target_rto IS 'the policy''s own objective, else the cluster''s; NULL where there is none';
COMMENT ON COLUMN v_policy_status.rpo_met IS 'whether what would be lost now is within the objective; NULL where either is not known';
COMMENT ON COLUMN v_policy_status.rto_met IS 'whether a recovery is predicted to take no longer than the objective; NULL where either is not known';
