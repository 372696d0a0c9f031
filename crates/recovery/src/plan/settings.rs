//! The lines of postgresql.auto.conf that make a restored data directory recover to the target and nothing else.

use super::shell::setting;
use super::{Action, Choice, Refusal, Site, Stop};
use crate::sentence::moment;

/// What tells recovery where to go.
///
/// The targets that are not meant come first, and empty: one that is left over from another recovery would be a second target, and
/// an empty one behind the one that is meant would take that back (assign_recovery_target_time() and its like).
pub(super) fn of_recovery(
    choice: &Choice,
    restore_command: Option<&str>,
    action: Action,
) -> Result<Vec<String>, Refusal> {
    const TARGETS: [&str; 5] = [
        "recovery_target",
        "recovery_target_time",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_xid",
    ];
    let meant = match &choice.stop {
        Stop::End => None,
        Stop::Time(time) => Some(("recovery_target_time", moment(*time))),
        Stop::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
        Stop::Name(name) => Some(("recovery_target_name", name.clone())),
        Stop::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
    };
    let command = restore_command.unwrap_or("false");
    // ALTER SYSTEM, which ends the recovery, would write it into the file as it is, and nobody could read the file any more.
    if command.contains('\n') {
        return Err(Refusal::LineBreakInCommand);
    }
    let mut lines = Vec::new();
    // The server wants one beside recovery.signal (validateRecoveryParameters, xlogrecovery.c). This one finds nothing, and recovery
    // goes on with what pg_wal holds.
    lines.push(setting("restore_command", command)?);
    // It removes WAL from the archive that a later recovery may want.
    lines.push(setting("archive_cleanup_command", "")?);
    for target in TARGETS {
        if meant.as_ref().is_none_or(|(name, _)| *name != target) {
            lines.push(setting(target, "")?);
        }
    }
    if let Some((name, value)) = meant {
        lines.push(setting(name, &value)?);
        lines.push(setting(
            "recovery_target_inclusive",
            if choice.inclusive { "on" } else { "off" },
        )?);
        lines.push(setting("recovery_target_action", action.as_str())?);
    }
    lines.push(setting("recovery_target_timeline", &choice.timeline.to_string())?);
    Ok(lines)
}

/// What keeps a copy beside a living server from writing into its archive, answering to its clients, or waiting for its standbys.
pub(super) fn of_a_copy(site: &Site, sockets: &str, port: u16) -> Result<Vec<String>, Refusal> {
    let mut lines = vec![setting("archive_mode", "off")?];
    lines.push(setting("listen_addresses", "")?);
    lines.push(setting(
        "unix_socket_directories",
        &format!("\"{}\"", sockets.replace('"', "\"\"")),
    )?);
    lines.push(setting("port", &port.to_string())?);
    lines.push(setting("ssl", "off")?);
    lines.push(setting("hot_standby", "on")?);
    lines.push(setting("synchronous_standby_names", "")?);
    lines.push(setting("max_logical_replication_workers", "0")?);
    lines.push(setting("recovery_end_command", "")?);
    lines.push(setting("external_pid_file", "")?);
    lines.push(setting("logging_collector", "off")?);
    if site.major >= 17 {
        lines.push(setting("summarize_wal", "off")?);
    }
    Ok(lines)
}

/// The settings that of_recovery() makes and that mean nothing once it is over. The one that may hold a line break comes first: ALTER
/// SYSTEM writes all others of the file anew, and a line break as it is (`write_auto_conf_file()`, guc.c).
pub(super) const SPENT: [&str; 8] = [
    "recovery_target_name",
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_xid",
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_target_timeline",
];
