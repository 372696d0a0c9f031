-- One row a run of neighbouring segments with the same fault. A segment that the archiver still holds back counts as
-- late once pg_backstop.archive_grace has passed.
CREATE VIEW wal_archive_gaps AS
WITH faulty AS (
    SELECT w.segment_name, w.timeline_id, w.start_lsn, w.end_lsn, w.problem, w.first_seen_at,
           CASE
               WHEN w.status = 'acknowledged' THEN 'acknowledged'
               WHEN w.status = 'pending' THEN 'late'
               WHEN @extschema@.wal_directory_holds(w.segment_name) THEN 'rescuable'
               ELSE 'lost'
           END AS state
      FROM @extschema@.wal_archive w
     WHERE w.status <> 'verified'
       AND w.start_lsn IS NOT NULL
       AND (w.status <> 'pending'
            OR w.first_seen_at < pg_catalog.now() - pg_catalog.current_setting('pg_backstop.archive_grace')::interval)
), marked AS (
    SELECT f.*,
           CASE WHEN pg_catalog.lag(f.end_lsn) OVER run = f.start_lsn
                 AND pg_catalog.lag(f.state) OVER run = f.state
                 AND pg_catalog.lag(f.problem) OVER run IS NOT DISTINCT FROM f.problem
                THEN 0 ELSE 1 END AS begins
      FROM faulty f
    WINDOW run AS (PARTITION BY f.timeline_id ORDER BY f.start_lsn)
), numbered AS (
    SELECT m.*, pg_catalog.sum(m.begins) OVER (PARTITION BY m.timeline_id ORDER BY m.start_lsn) AS run_number
      FROM marked m
), gaps AS (
    SELECT n.timeline_id,
           pg_catalog.min(n.segment_name) AS from_segment,
           pg_catalog.max(n.segment_name) AS to_segment,
           pg_catalog.count(*) AS segments,
           pg_catalog.min(n.start_lsn) AS from_lsn,
           pg_catalog.max(n.end_lsn) AS to_lsn,
           n.state,
           n.problem,
           pg_catalog.min(n.first_seen_at) AS since
      FROM numbered n
     GROUP BY n.timeline_id, n.run_number, n.state, n.problem
)
SELECT g.timeline_id, g.from_segment, g.to_segment, g.segments, g.from_lsn, g.to_lsn, g.state, g.problem, g.since,
       ARRAY(SELECT b.id
               FROM @extschema@.backup_history b
              WHERE b.status = 'completed'
                AND b.backup_type IN ('full', 'incremental', 'differential')
                AND b.start_lsn < g.to_lsn
              ORDER BY b.id) AS affected_backups
  FROM gaps g;

COMMENT ON VIEW wal_archive_gaps IS
'Runs of archived WAL that recovery could not read, and the backups that each run cuts off from later moments.';
