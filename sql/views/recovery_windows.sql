-- One row an unbroken stretch of history: any moment in it can be recovered to.
CREATE VIEW recovery_windows AS
SELECT w.timeline_id, w.backup_id, w.from_time, w.to_time, w.from_lsn, w.to_lsn, w.ended_by, w.is_current
  FROM @extschema@.list_recovery_windows() w;

COMMENT ON VIEW recovery_windows IS
'Unbroken stretches of recoverable history: from where a backup is consistent to where verified WAL ends, and what ended it.';
