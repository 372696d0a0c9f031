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
    pg_catalog.max(end_time) FILTER (WHERE status = 'failed') AS last_failed_at
FROM recovery_history
GROUP BY recovery_type;
COMMENT ON VIEW v_rto_rpo_monitoring IS 'what recoveries and rehearsals took and lost, for each type of recovery';
COMMENT ON COLUMN v_rto_rpo_monitoring.recovery_count IS 'completed recoveries, rehearsals among them: those that the averages are of';
COMMENT ON COLUMN v_rto_rpo_monitoring.unknown_rpo_count IS 'completed recoveries of which nobody knows what was lost';
