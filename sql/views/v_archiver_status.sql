-- One row: what the archiver says of itself, what waits for it, and which settings keep it from archiving.
CREATE VIEW v_archiver_status AS
WITH ready AS (
    SELECT pg_catalog.count(*) AS segments, pg_catalog.min(s.modification) AS oldest
      FROM pg_catalog.pg_ls_archive_statusdir() s
     WHERE s.name LIKE '%.ready'
), settings AS (
    SELECT pg_catalog.current_setting('archive_mode') AS archive_mode,
           pg_catalog.current_setting('wal_level') AS wal_level,
           pg_catalog.current_setting('archive_timeout') AS archive_timeout,
           pg_catalog.current_setting('archive_command', true) AS archive_command,
           pg_catalog.current_setting('archive_library', true) AS archive_library
)
SELECT a.archived_count, a.last_archived_wal, a.last_archived_time,
       a.failed_count, a.last_failed_wal, a.last_failed_time, a.stats_reset,
       r.segments AS ready_segments,
       pg_catalog.extract('epoch', pg_catalog.now() - r.oldest) AS oldest_ready_seconds,
       s.archive_mode,
       s.archive_timeout,
       pg_catalog.array_remove(ARRAY[
           CASE WHEN s.archive_mode = 'off'
                THEN 'archive_mode is off: no WAL is archived; set it to on and restart the server' END,
           CASE WHEN s.wal_level = 'minimal'
                THEN 'wal_level is minimal: archived WAL cannot recover anything; set it to replica and restart the server' END,
           CASE WHEN s.archive_mode <> 'off'
                 AND COALESCE(s.archive_library, '') = ''
                 AND COALESCE(s.archive_command, '') IN ('', '(disabled)')
                THEN 'archive_command is empty: WAL piles up in pg_wal; set archive_command or archive_library' END,
           CASE WHEN s.archive_mode <> 'off'
                 AND s.archive_command ~ '^\s*(/usr)?(/bin/)?(true|:)\s*$'
                THEN 'archive_command only pretends to archive: it answers success without storing anything' END,
           CASE WHEN a.last_failed_time > COALESCE(a.last_archived_time, '-infinity')
                THEN pg_catalog.format('archiving fails: %s could not be archived at %s; see the server log',
                                       a.last_failed_wal, a.last_failed_time) END
       ], NULL) AS problems
  FROM pg_catalog.pg_stat_archiver a, ready r, settings s;

COMMENT ON VIEW v_archiver_status IS
'The archiver''s own counters, the queue of segments that wait for it, and the settings that break archiving.';
