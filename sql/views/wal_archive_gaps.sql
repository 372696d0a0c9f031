-- One row a run of neighbouring segments with the same fault. A segment that the archiver still holds back counts as
-- late once pg_backstop.archive_grace has passed.
CREATE VIEW wal_archive_gaps AS
SELECT g.timeline_id, g.from_segment COLLATE pg_catalog."C" AS from_segment,
       g.to_segment COLLATE pg_catalog."C" AS to_segment, g.segments, g.from_lsn, g.to_lsn, g.state, g.problem, g.since,
       g.affected_backups
  FROM @extschema@.list_wal_archive_gaps() g;

COMMENT ON VIEW wal_archive_gaps IS
'Runs of archived WAL that recovery could not read, and the backups that each run cuts off from later moments.';
