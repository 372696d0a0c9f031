//! The steps of a recovery, with commands for a shell, for the server's own major version.

use archive::printable;

use super::pg_ctl::refuse_unsafe;
use super::restore::restore;
use super::settings::{SPENT, of_a_copy, of_recovery};
use super::shell::{append, below, database, each, literal, posix_word, word};
use super::stamps::{self, note};
use super::tablespaces::{refuse_newer, stop_unless_apart};
use super::{Account, Action, Choice, Refusal, Site, Stop, Tool};
use crate::sentence::{moment, seconds, size, span};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done, and why.
    pub action: String,
    /// For a shell; none where there is nothing to run, or not enough is known.
    pub command: Option<String>,
}

/// The steps, in order. Their commands are for bash, in one session, as the user that the server runs as.
///
/// # Errors
/// Where the backup cannot be restored on this server.
pub fn steps(account: &Account, site: &Site) -> Result<Vec<Step>, Refusal> {
    refuse_unsafe(site)?;
    refuse_newer(account, site)?;
    let writer = Writer { account, site };
    let mut steps = vec![writer.summary(), writer.note_the_time()];
    steps.extend(writer.make_room()?);
    steps.push(writer.restore()?);
    steps.extend(writer.rescue_wal()?);
    steps.push(writer.configure()?);
    steps.push(writer.start()?);
    if account.action == Action::Pause && account.choice.stop != Stop::End {
        steps.push(writer.wait_for_pause()?);
        steps.push(writer.show()?);
        steps.push(writer.resume()?);
        steps.push(writer.wait(stamps::OPENED)?);
    } else {
        steps.push(writer.wait(stamps::REPLAYED)?);
        steps.push(writer.show()?);
    }
    steps.extend(writer.clean()?);
    steps.push(writer.record()?);
    Ok(steps)
}

/// What is known of a moment that a recovery is to reach, in one clause.
fn aim(choice: &Choice) -> String {
    let side = if choice.inclusive {
        "up to and with"
    } else {
        "up to, and without,"
    };
    match &choice.stop {
        Stop::End => "to the end of the archived WAL".to_owned(),
        Stop::Time(time) => format!("{side} {}", moment(*time)),
        Stop::Lsn(lsn) => format!("{side} the record at LSN {lsn}"),
        Stop::Name(name) => format!("up to the restore point \"{}\"", printable(name)),
        Stop::Xid(xid) => format!("{side} the commit of transaction {xid}"),
    }
}

struct Writer<'a> {
    account: &'a Account,
    site: &'a Site,
}

fn step(action: impl Into<String>, command: String) -> Step {
    Step {
        action: action.into(),
        command: Some(command),
    }
}

impl Writer<'_> {
    fn program(&self, name: &str) -> Result<String, Refusal> {
        below(&self.site.bindir, name)
    }

    fn directory(&self) -> Result<String, Refusal> {
        word(&self.account.to.path)
    }

    /// What was there before.
    fn moved(&self, path: &str) -> String {
        format!("{path}.before-recovery-{}", self.account.now.format("%Y%m%dT%H%M%SZ"))
    }

    fn summary(&self) -> Step {
        let (account, choice) = (self.account, &self.account.choice);
        let age = account.backup_at.map_or_else(String::new, |at| {
            let age = account.now.signed_duration_since(at).to_std().unwrap_or_default();
            format!(", which is {} old,", span(age))
        });
        let wal = choice.stop_lsn.map_or_else(
            || "WAL".to_owned(),
            |lsn| format!("about {} of WAL", size(lsn.bytes_since(choice.start))),
        );
        let duration = match account.predicted {
            Some(predicted) => format!("A recovery is predicted to take {}.", seconds(predicted)),
            None => "How long it takes is not known: no recovery was measured on this cluster.".to_owned(),
        };
        let unverified = choice.unverified.map_or_else(String::new, |segment| {
            format!(
                " What follows, from segment {segment} on, is not verified yet: it is taken from the pg_wal of the server that is \
                 replaced."
            )
        });
        let newer = choice.newer_without_place.map_or_else(String::new, |newer| {
            format!(" Backup {newer} is newer, but where it is, is not on record.")
        });
        Step {
            action: format!(
                "Backup {}{age} is restored, and {wal} from LSN {} on is replayed on timeline {}, {}. All of it was read and \
                 verified, record by record.{unverified} {duration}{newer} Run the commands in one session of bash, as the user \
                 that the server runs as, and go on only where one succeeded.",
                choice.backup,
                choice.start,
                choice.timeline,
                aim(choice)
            ),
            command: None,
        }
    }

    fn note_the_time(&self) -> Step {
        step("Note when the recovery begins.", stamps::begin())
    }

    fn make_room(&self) -> Result<Vec<Step>, Refusal> {
        let directory = self.directory()?;
        if self.account.to.is_beside {
            return Ok(vec![step(
                "Make the new data directory, which must be empty. The running server goes on beside it.",
                each(&[
                    format!("mkdir -p -- {directory}"),
                    format!("chmod 0700 -- {directory}"),
                    format!(
                        "if [ -n \"$(ls -A -- {directory})\" ]; then echo {directory}' is not empty' >&2; false; fi"
                    ),
                ]),
            )]);
        }
        let control = self.program("pg_ctl")?;
        let mut commands = vec![format!(
            "mv -T -- {directory} {}",
            word(&self.moved(&self.account.to.path))?
        )];
        commands.push(format!("mkdir -m 0700 -- {directory}"));
        for (_, place) in &self.site.tablespaces {
            commands.push(format!("mv -T -- {} {}", word(place)?, word(&self.moved(place))?));
            commands.push(format!("mkdir -m 0700 -- {}", word(place)?));
        }
        let mut stopping = Vec::new();
        if let Some(segment) = self.account.choice.unverified {
            // Without it recovery would go on with what lies behind the switch on the timeline that the server has left.
            stopping.push(format!(
                "if [ ! -f {} ]; then echo 'segment {segment} is not in pg_wal: ask for the plan again once it is verified, or with \
                 target_lsn => {}' >&2; false; fi",
                below(&self.account.to.path, &format!("pg_wal/{segment}"))?,
                self.account.choice.bounds.to_lsn
            ));
        }
        stopping.push(format!(
            "if {control} status -D {directory} > /dev/null; then {control} stop -D {directory} -m fast -w -t 3600; fi"
        ));
        Ok(vec![
            step(
                "Stop the server, if it still runs. Where a service manager would start it again, stop it through that.",
                each(&stopping),
            ),
            step(
                "Move away what is there, and keep it until all is well. Where a directory is a mount point, move what is in it.",
                each(&commands),
            ),
        ])
    }

    fn restore(&self) -> Result<Step, Refusal> {
        let (action, command) = match &self.account.tool {
            Some(tool) => tool.restore(&self.account.choice, &self.account.to, self.account.action)?,
            None => restore(&self.account.chain, &self.account.to, self.site)?,
        };
        let command = command.map(|command| each(&[note(stamps::RESTORING), command, note(stamps::RESTORED)]));
        Ok(Step { action, command })
    }

    /// What the server had not archived yet is in its own pg_wal, which no plan can know to be whole.
    fn rescue_wal(&self) -> Result<Option<Step>, Refusal> {
        if self.account.to.is_beside || self.account.choice.stop != Stop::End {
            return Ok(None);
        }
        let from = below(&self.moved(&self.account.to.path), "pg_wal/")?;
        let to = below(&self.account.to.path, "pg_wal/")?;
        Ok(Some(step(
            "Add the WAL and the history files that were not archived yet, so that recovery goes on to the last commit.",
            format!(
                "for file in {from}???????????????????????? {from}????????.history; do\n  [ ! -f \"$file\" ] || [ -e {to}\"${{file##*/}}\" ] || cp -a -- \"$file\" {to}\ndone"
            ),
        )))
    }

    fn configure(&self) -> Result<Step, Refusal> {
        let account = self.account;
        let path = &account.to.path;
        let by_tool = account.tool.as_ref().is_some_and(Tool::configures_recovery);
        let mut lines = Vec::new();
        if !by_tool {
            lines = of_recovery(&account.choice, account.restore_command.as_deref(), account.action)?;
        }
        if account.to.is_beside {
            let (sockets, port) = self.where_it_answers();
            lines.extend(of_a_copy(self.site, &sockets, port)?);
        }
        let left_over = ["standby.signal", "postmaster.pid", "postmaster.opts"]
            .iter()
            .map(|name| below(path, name))
            .collect::<Result<Vec<_>, _>>()?;
        let mut commands = stop_unless_apart(account, self.site)?;
        let may_share = !commands.is_empty();
        commands.push(format!("rm -f -- {}", left_over.join(" ")));
        commands.push(format!("touch -- {}", below(path, "recovery.signal")?));
        let mut command = each(&commands);
        if !lines.is_empty() {
            command = format!(
                "{command} &&\n{}",
                append(&format!("{path}/postgresql.auto.conf"), &lines)?
            );
        }
        let mut action = String::from("Tell the server to recover, and how far.");
        if !by_tool && account.restore_command.is_none() {
            action.push_str(
                " Nothing says how WAL is fetched from an archive: recovery goes on with what the backup holds. Where there is an \
                 archive, put the restore_command for it into these settings.",
            );
        }
        if may_share {
            action.push_str(
                " The running server has tablespaces, and it is not known whether this backup holds a copy of each. One that was \
                 made after the backup would be replayed into the running server's own directory, so this stops unless pg_tblspc \
                 leads to copies of all of them: take a new backup then, or restore on another host.",
            );
        }
        action.push_str(match (account.action, &account.choice.stop) {
            (_, Stop::End) => " It takes writes once all WAL is replayed.",
            (Action::Promote, _) => " It takes writes as soon as the target is reached.",
            (Action::Pause, _) => {
                " It waits at the target until it is told to go on, so that the data can be looked at."
            }
        });
        action.push_str(if account.to.is_beside {
            " This copy archives nothing, so that the archive stays the running server's alone, and answers on a socket in a \
             directory of its own only."
        } else {
            " It archives as before, on a new timeline."
        });
        Ok(step(action, command))
    }

    /// The directory of the socket, and the port.
    fn where_it_answers(&self) -> (String, u16) {
        // UNIXSOCK_PATH_BUFLEN: what a socket's name may have, with "/.s.PGSQL.65535" and ".lock".
        const LONGEST: usize = 107 - 20;
        let site = self.site;
        if !self.account.to.is_beside {
            return (self.own_socket(), site.port);
        }
        // libpq takes a comma for the end of a host.
        if self.account.to.path.len() <= LONGEST && !self.account.to.path.contains(',') {
            return (self.account.to.path.clone(), site.port);
        }
        ("/tmp".to_owned(), site.port.checked_add(1).unwrap_or(5433))
    }

    /// Where the running server answers. libpq takes a comma for the end of a host.
    fn own_socket(&self) -> String {
        let socket = self.site.socket.clone().filter(|socket| !socket.contains(','));
        socket.unwrap_or_else(|| "localhost".to_owned())
    }

    fn start(&self) -> Result<Step, Refusal> {
        let directory = self.directory()?;
        let options = match &self.site.config_file {
            None => String::new(),
            Some(file) => {
                // Read by bash, and by the shell that pg_ctl starts.
                let inner = format!("-c config_file={} -c data_directory={directory}", posix_word(file)?);
                format!(" -o {}", word(&inner)?)
            }
        };
        let log = word(&self.account.to.log())?;
        Ok(step(
            "Start the server. It takes connections once it has replayed enough to be consistent.",
            format!(
                "{}\n{} start -D {directory} -w -t 86400 -l {log}{options} || {{ tail -n 20 -- {log} >&2; false; }}",
                note(stamps::REPLAYING),
                self.program("pg_ctl")?
            ),
        ))
    }

    fn psql(&self, options: &str) -> Result<String, Refusal> {
        let (host, port) = self.where_it_answers();
        self.psql_at(&host, port, options)
    }

    fn psql_at(&self, host: &str, port: u16, options: &str) -> Result<String, Refusal> {
        Ok(format!(
            "{} -X{options} -h {} -p {port} -U {} -d {}",
            self.program("psql")?,
            word(host)?,
            word(&self.site.superuser)?,
            database(&self.site.database)?
        ))
    }

    /// Asks the recovering server until it answers what is expected, or has ended.
    fn until(&self, question: &str, answer: &str) -> Result<String, Refusal> {
        Ok(format!(
            "until [ \"$({} -c {})\" = {answer} ]; do\n  {} status -D {} > /dev/null || {{ tail -n 20 -- {} >&2; break; }}\n  sleep 1\ndone",
            self.psql(" -At")?,
            word(question)?,
            self.program("pg_ctl")?,
            self.directory()?,
            word(&self.account.to.log())?
        ))
    }

    fn wait(&self, stamp: &str) -> Result<Step, Refusal> {
        let until = self.until("SELECT pg_catalog.pg_is_in_recovery()", "f")?;
        Ok(step(
            "Wait for the end of recovery.",
            format!("{until}\n{}", note(stamp)),
        ))
    }

    fn wait_for_pause(&self) -> Result<Step, Refusal> {
        let until = self.until("SELECT pg_catalog.pg_get_wal_replay_pause_state()", "paused")?;
        Ok(step(
            "Wait until the target is reached.",
            format!("{until}\n{}", note(stamps::REPLAYED)),
        ))
    }

    fn resume(&self) -> Result<Step, Refusal> {
        Ok(step(
            "Look at the data. Where it is as wanted, let the server go on; it then takes writes.",
            format!(
                "{}\n{} -c {}",
                note(stamps::RESUMED),
                self.psql("")?,
                word("SELECT pg_catalog.pg_wal_replay_resume()")?
            ),
        ))
    }

    fn show(&self) -> Result<Step, Refusal> {
        const REACHED: &str = "SELECT pg_catalog.pg_last_xact_replay_timestamp() AS last_commit, \
                               pg_catalog.pg_last_wal_replay_lsn() AS replayed_to";
        Ok(step(
            "See what was reached: the last commit that was replayed, and where replay ended.",
            format!("{} -c {}", self.psql("")?, word(REACHED)?),
        ))
    }

    fn clean(&self) -> Result<Option<Step>, Refusal> {
        if self.account.to.is_beside {
            return Ok(None);
        }
        let resets = SPENT
            .iter()
            .map(|name| word(&format!("ALTER SYSTEM RESET {name}")).map(|reset| format!(" -c {reset}")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some(step(
            "Remove the target from the settings. Then take a new base backup, and make the standbys anew.",
            format!("{}{}", self.psql("")?, resets.concat()),
        )))
    }

    fn record(&self) -> Result<Step, Refusal> {
        if self.account.to.is_beside && self.site.is_standby {
            return Ok(Step {
                action:
                    "Record the rehearsal on the primary, with record_recovery_start() and record_recovery_complete()."
                        .to_owned(),
                command: None,
            });
        }
        let (account, choice, schema) = (self.account, &self.account.choice, &self.site.schema);
        if schema.chars().any(char::is_control) {
            return Err(Refusal::ControlInSchema { schema: schema.clone() });
        }
        let (kind, target) = match &choice.stop {
            Stop::End => ("latest", String::new()),
            Stop::Time(time) => ("point_in_time", format!(", target_time => {}", literal(&moment(*time)))),
            Stop::Lsn(lsn) => ("lsn", format!(", target_lsn => '{lsn}'")),
            Stop::Name(name) => ("name", format!(", target_name => {}", literal(name))),
            Stop::Xid(xid) => ("xid", format!(", target_xid => {xid}")),
        };
        let begun = format!(
            "{schema}.record_recovery_start('{kind}'{target}, target_timeline => {}, backup_id => {}, is_drill => {}, started_at => :'started') AS s",
            choice.timeline, choice.backup, account.to.is_beside
        );
        let reached = "SELECT pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.pg_last_wal_replay_lsn()";
        let completed = format!(
            "SELECT c.* FROM {begun}, LATERAL {schema}.record_recovery_complete(s.recovery_id, \
             recovered_to_time => nullif(:'time', '')::pg_catalog.timestamptz, \
             recovered_to_lsn => nullif(:'lsn', '')::pg_catalog.pg_lsn, {}) AS c;",
            stamps::arguments()
        );
        let keeper = self.psql_at(&self.own_socket(), self.site.port, " -v ON_ERROR_STOP=1")?;
        let action = if account.to.is_beside {
            "Record the rehearsal in the running server, so that later predictions rest on it. Leave this out where that server is gone."
        } else {
            "Record the recovery, so that later predictions rest on it."
        };
        Ok(step(
            action,
            format!(
                "IFS='|' read -r BACKSTOP_TIME BACKSTOP_LSN <<< \"$({} -c {})\" &&\n{keeper}{} -v time=\"$BACKSTOP_TIME\" -v lsn=\"$BACKSTOP_LSN\" <<'END_OF_SQL'\n{completed}\nEND_OF_SQL",
                self.psql(" -At")?,
                word(reached)?,
                stamps::options()
            ),
        ))
    }
}
