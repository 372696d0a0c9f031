-- One row: can this cluster be recovered, to when, with what loss; and if not, where and what to do.
CREATE VIEW recovery_readiness AS
SELECT r.status, r.recoverable_from, r.recoverable_to,
       trim_scale(round(r.rpo_seconds::numeric, 3)) AS rpo_seconds,
       r.rpo_bytes,
       trim_scale(round(r.predicted_rto_seconds::numeric, 3)) AS predicted_rto_seconds,
       r.rto_basis, r.last_proven_at,
       trim_scale(round(r.verifier_age_seconds::numeric, 3)) AS verifier_age_seconds,
       r.open_alerts, r.reasons, r.newest_usable_backup, r.protected_lsn
  FROM @extschema@.assess_recovery_readiness() r;

COMMENT ON VIEW recovery_readiness IS
'The verdict in one row: ready, at_risk, unrecoverable or unknown, and the reasons.';
