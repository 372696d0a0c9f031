//! When each part of a recovery began and ended. The commands keep that in variables of their shell, and later predictions rest on
//! it.

/// When the recovery began.
pub(super) const STARTED: &str = "BACKSTOP_STARTED";
/// When the backup began to be copied, and when it was.
pub(super) const RESTORING: &str = "BACKSTOP_RESTORING";
pub(super) const RESTORED: &str = "BACKSTOP_RESTORED";
/// When the server was started, and when it had replayed the WAL.
pub(super) const REPLAYING: &str = "BACKSTOP_REPLAYING";
pub(super) const REPLAYED: &str = "BACKSTOP_REPLAYED";
/// When the server was told to go on from its target, and when it took writes.
pub(super) const RESUMED: &str = "BACKSTOP_RESUMED";
pub(super) const OPENED: &str = "BACKSTOP_OPENED";

/// Each moment, and the variable of psql that has it.
const ALL: [(&str, &str); 7] = [
    (STARTED, "started"),
    (RESTORING, "restoring"),
    (RESTORED, "restored"),
    (REPLAYING, "replaying"),
    (REPLAYED, "replayed"),
    (RESUMED, "resumed"),
    (OPENED, "opened"),
];

/// Notes the moment.
pub(super) fn note(variable: &str) -> String {
    format!("{variable}=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)")
}

/// Notes the moment that a recovery begins, and forgets those of another one in the same shell.
pub(super) fn begin() -> String {
    let others: Vec<String> = ALL.iter().skip(1).map(|(variable, _)| format!("{variable}=")).collect();
    format!("{}\n{}", others.join(" "), note(STARTED))
}

/// The options that pass them on to psql.
pub(super) fn options() -> String {
    ALL.iter()
        .map(|(variable, name)| format!(" -v {name}=\"${variable}\""))
        .collect()
}

/// The arguments of `record_recovery_complete()`, in SQL for psql. What was not noted, or a clock that was set back contradicts, is
/// NULL.
pub(super) fn arguments() -> String {
    [
        ("restore_seconds", "restoring", "restored"),
        ("replay_seconds", "replaying", "replayed"),
        ("startup_seconds", "resumed", "opened"),
    ]
    .map(|(argument, from, to)| {
        let at = |name: &str| format!("nullif(:'{name}', '')::pg_catalog.timestamptz");
        let (from, to) = (at(from), at(to));
        format!("{argument} => nullif(greatest(extract(epoch FROM {to} OPERATOR(pg_catalog.-) {from}), 0.0), 0.0)")
    })
    .join(", ")
}
