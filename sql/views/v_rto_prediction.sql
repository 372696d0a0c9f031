-- Two rows: how long a recovery would take now, and at worst, and what that rests on.
CREATE VIEW v_rto_prediction AS
SELECT p.recovery_to, p.target_lsn, p.backup_id, p.backup_bytes, p.wal_bytes,
       trim_scale(round(p.restore_seconds::numeric, 3)) AS restore_seconds,
       trim_scale(round(p.replay_seconds::numeric, 3)) AS replay_seconds,
       trim_scale(round(p.startup_seconds::numeric, 3)) AS startup_seconds,
       trim_scale(round(p.predicted_rto_seconds::numeric, 3)) AS predicted_rto_seconds,
       p.basis
  FROM @extschema@.list_rto_predictions() p;

COMMENT ON VIEW v_rto_prediction IS
'How long a recovery to this moment would take, and one to the moment of the current window that takes longest; NULL where nobody measured, and basis says what.';
COMMENT ON COLUMN v_rto_prediction.wal_bytes IS 'WAL from the start of the backup to the target';
