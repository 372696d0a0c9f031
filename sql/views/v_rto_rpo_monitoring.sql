-- One row for each type of recovery that was recorded. Averages are of completed ones; a failed one has no RTO.
CREATE VIEW v_rto_rpo_monitoring AS
SELECT
    recovery_type,
    pg_catalog.round(pg_catalog.avg(rto_seconds) FILTER (WHERE status = 'completed'), 3) AS avg_rto_seconds,
    pg_catalog.round(pg_catalog.avg(rpo_seconds) FILTER (WHERE status = 'completed'), 3) AS avg_rpo_seconds,
    pg_catalog.min(rto_seconds) FILTER (WHERE status = 'completed') AS min_rto_seconds,
    pg_catalog.max(rto_seconds) FILTER (WHERE status = 'completed') AS max_rto_seconds,
    pg_catalog.count(*) FILTER (WHERE status = 'completed') AS recovery_count,
    pg_catalog.max(rpo_seconds) FILTER (WHERE status = 'completed') AS max_rpo_seconds,
    pg_catalog.count(*) FILTER (WHERE status = 'completed' AND rpo_seconds IS NULL) AS unknown_rpo_count,
    pg_catalog.count(*) FILTER (WHERE status = 'completed' AND is_drill) AS drill_count,
    pg_catalog.count(*) FILTER (WHERE status = 'failed') AS failed_count,
    pg_catalog.count(*) FILTER (WHERE status = 'running') AS running_count,
    pg_catalog.max(end_time) FILTER (WHERE status = 'completed') AS last_completed_at,
    pg_catalog.max(end_time) FILTER (WHERE status = 'failed') AS last_failed_at,
    pg_catalog.round((pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY rto_seconds::double precision)
        FILTER (WHERE status = 'completed'))::numeric, 3) AS median_rto_seconds,
    pg_catalog.round((pg_catalog.percentile_cont(0.95) WITHIN GROUP (ORDER BY rto_seconds::double precision)
        FILTER (WHERE status = 'completed'))::numeric, 3) AS p95_rto_seconds,
    pg_catalog.round((pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY rpo_seconds::double precision)
        FILTER (WHERE status = 'completed'))::numeric, 3) AS median_rpo_seconds,
    pg_catalog.round((pg_catalog.percentile_cont(0.95) WITHIN GROUP (ORDER BY rpo_seconds::double precision)
        FILTER (WHERE status = 'completed'))::numeric, 3) AS p95_rpo_seconds,
    pg_catalog.round(pg_catalog.avg(CASE WHEN rto_met THEN 1.0 ELSE 0.0 END)
        FILTER (WHERE status = 'completed' AND rto_met IS NOT NULL), 6) AS rto_within_target,
    pg_catalog.round(pg_catalog.avg(CASE WHEN rpo_met THEN 1.0 ELSE 0.0 END)
        FILTER (WHERE status = 'completed' AND rpo_met IS NOT NULL), 6) AS rpo_within_target,
    pg_catalog.count(*) FILTER (WHERE status = 'completed' AND error_percent IS NOT NULL) AS predicted_count,
    pg_catalog.round(pg_catalog.avg(error_percent) FILTER (WHERE status = 'completed'), 1) AS avg_prediction_error_percent,
    pg_catalog.round(pg_catalog.max(error_percent) FILTER (WHERE status = 'completed'), 1) AS max_prediction_error_percent
FROM (
    SELECT
        recovery.*,
        pg_catalog.make_interval(secs => recovery.rto_seconds::double precision) <= targets.rto AS rto_met,
        pg_catalog.make_interval(secs => recovery.rpo_seconds::double precision) <= targets.rpo AS rpo_met,
        CASE WHEN recovery.rto_seconds::numeric > 0.0
             THEN pg_catalog.abs(recovery.predicted_rto_seconds::numeric - recovery.rto_seconds::numeric)
                 / recovery.rto_seconds::numeric * 100.0 END AS error_percent
    FROM recovery_history AS recovery
    CROSS JOIN (SELECT * FROM current_objectives() LIMIT 1) AS cluster
    -- A look-up for each: a join would read all backups for the sake of a few recoveries.
    LEFT JOIN LATERAL (
        SELECT backup.policy_id FROM backup_history AS backup WHERE backup.id = recovery.backup_id OFFSET 0
    ) AS backup ON true
    LEFT JOIN backup_policies AS policy ON policy.id = backup.policy_id
    CROSS JOIN LATERAL (
        SELECT
            nullif(coalesce(policy.target_rpo, pg_catalog.make_interval(secs => cluster.target_rpo_seconds)), interval '0') AS rpo,
            nullif(coalesce(policy.target_rto, pg_catalog.make_interval(secs => cluster.target_rto_seconds)), interval '0') AS rto
    ) AS targets
) AS judged
GROUP BY recovery_type;
COMMENT ON VIEW v_rto_rpo_monitoring IS 'what recoveries and rehearsals took and lost, for each type of recovery';
COMMENT ON COLUMN v_rto_rpo_monitoring.recovery_count IS 'completed recoveries, rehearsals among them: those that the averages are of';
COMMENT ON COLUMN v_rto_rpo_monitoring.unknown_rpo_count IS 'completed recoveries of which nobody knows what was lost';
COMMENT ON COLUMN v_rto_rpo_monitoring.rto_within_target IS 'part of the completed recoveries, from 0 to 1, that met the objective of their backup''s policy, else the cluster''s';
COMMENT ON COLUMN v_rto_rpo_monitoring.rpo_within_target IS 'likewise for what was lost, of those of which it is known';
COMMENT ON COLUMN v_rto_rpo_monitoring.avg_prediction_error_percent IS 'how far off the predicted durations were, in per cent of the observed ones, whichever way';
