-- How much WAL was written in which hour, from what verification saw. A segment counts in the hour of its last commit; one
-- without a commit, in that of the commit before it.
CREATE VIEW v_wal_volume AS
SELECT
    pg_catalog.date_trunc('hour', placed.at) AS hour,
    pg_catalog.count(*) AS segments,
    pg_catalog.sum(placed.data_bytes)::bigint AS wal_bytes,
    pg_catalog.sum(placed.commit_count)::bigint AS commits
FROM (
    SELECT
        coalesce(
            last_commit_at,
            pg_catalog.max(last_commit_at) OVER (PARTITION BY timeline_id ORDER BY start_lsn)
        ) AS at,
        data_bytes,
        commit_count
    FROM wal_archive
    WHERE status = 'verified' AND start_lsn IS NOT NULL
) AS placed
GROUP BY 1;
COMMENT ON VIEW v_wal_volume IS 'verified WAL by hour of its commits: segments, bytes up to the switch that ended each, commits';
