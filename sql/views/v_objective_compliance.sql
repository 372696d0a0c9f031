-- One row for each of the last 24 hours, 7 days and 30 days: how much of the time lay within the cluster's objectives.
CREATE VIEW v_objective_compliance AS
SELECT c.period, c.since,
       pg_catalog.trim_scale(pg_catalog.round(c.observed_share::numeric, 6)) AS observed_share,
       pg_catalog.trim_scale(pg_catalog.round(c.rpo_share::numeric, 6)) AS rpo_share,
       pg_catalog.trim_scale(pg_catalog.round(c.rto_share::numeric, 6)) AS rto_share,
       pg_catalog.trim_scale(pg_catalog.round(c.worst_rpo_seconds::numeric, 3)) AS worst_rpo_seconds,
       c.worst_rpo_bytes,
       pg_catalog.trim_scale(pg_catalog.round(c.worst_predicted_rto_seconds::numeric, 3)) AS worst_predicted_rto_seconds,
       pg_catalog.make_interval(secs => o.target_rpo_seconds) AS target_rpo,
       pg_catalog.make_interval(secs => o.target_rto_seconds) AS target_rto,
       pg_catalog.trim_scale(pg_catalog.round(c.avg_rpo_seconds::numeric, 3)) AS avg_rpo_seconds,
       pg_catalog.trim_scale(pg_catalog.round(c.observed_seconds::numeric, 3)) AS observed_seconds,
       pg_catalog.trim_scale(pg_catalog.round(c.rpo_outside_seconds::numeric, 3)) AS rpo_outside_seconds,
       pg_catalog.trim_scale(pg_catalog.round(c.rto_outside_seconds::numeric, 3)) AS rto_outside_seconds,
       pg_catalog.trim_scale(pg_catalog.round(c.unprotected_seconds::numeric, 3)) AS unprotected_seconds,
       c.sample_count
  FROM @extschema@.list_objective_compliance() c, @extschema@.current_objectives() o;

COMMENT ON VIEW v_objective_compliance IS
'For the last 24 hours, 7 days and 30 days: how much of the time was watched, how much of that lay within the objectives that held then, and the worst that was seen';
COMMENT ON COLUMN v_objective_compliance.since IS 'the full hour at which the period begins';
COMMENT ON COLUMN v_objective_compliance.observed_share IS 'part of the period in which the worker watched, from 0 to 1; the rest counts neither as inside nor as outside';
COMMENT ON COLUMN v_objective_compliance.rpo_share IS 'part of the watched time, as far as it could be judged, in which the exposure was within the objective; NULL where none could';
COMMENT ON COLUMN v_objective_compliance.rto_share IS 'likewise for the predicted duration of a recovery';
COMMENT ON COLUMN v_objective_compliance.target_rpo IS 'the objective of now; each moment is judged by the one that held then';
COMMENT ON COLUMN v_objective_compliance.unprotected_seconds IS 'how long there was no usable backup and no receiver that counts; outside of any objective';
