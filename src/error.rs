//! What can go wrong in a call, and how PostgreSQL tells the caller: SQLSTATE, message, detail, hint.
//!
//! The one place where a condition gets its SQLSTATE. Functions return `Result<_, ErrorReport>`, because pgrx keeps the
//! SQLSTATE of no other error type.

use archive::secrets::masked;
use archive::{brief, printable, printable_lines};
use pgrx::PgTryBuilder;
use pgrx::datum::TryFromDatumError;
use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::spi::SpiError;
use recovery::plan::Refusal;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use thiserror::Error;

use crate::catalog::sayable;

/// So many policies are named where one is not known.
const NAMED: usize = 20;

/// The one place where a text from outside becomes part of what the log, `last_error` and callers get: without what looks like a
/// password, and without what would move a cursor.
fn shown(text: &str) -> String {
    masked(&printable_lines(text))
}

/// Why a call did nothing.
#[derive(Debug, Error)]
pub enum Error {
    /// The extension is not in this database.
    #[error("extension \"pg_backstop\" is not installed in this database")]
    NotInstalled,
    /// Another session drops the extension, and this one holds what it waits for.
    #[error("extension \"pg_backstop\" is being dropped by another session")]
    BeingDropped,
    /// Others than superusers could put something in the place of the extension's objects.
    #[error("extension \"pg_backstop\" is not safe in schema \"{schema}\": {who} {why} and is no superuser")]
    UnsafeSchema {
        /// The extension's schema.
        schema: String,
        /// The role, or PUBLIC.
        who: String,
        /// What it is to the schema.
        why: &'static str,
    },
    /// The extension's owner, with whose rights its statements run, is no superuser any more.
    #[error("role \"{role}\", the owner of extension \"pg_backstop\", is no superuser")]
    OwnerIsNoSuperuser {
        /// The owner.
        role: String,
    },
    /// A name in one of our statements means something else.
    #[error("{object} does not belong to extension \"pg_backstop\"")]
    ForeignObject {
        /// What it means.
        object: String,
    },
    /// A trigger that would run somebody's code with the rights of the extension's owner.
    #[error("trigger \"{trigger}\" on table \"{table}\" runs code of role \"{role}\", who is no superuser")]
    ForeignTrigger {
        /// The trigger.
        trigger: String,
        /// A table of the extension.
        table: String,
        /// The owner of that code.
        role: String,
    },
    /// A trigger that might run what its maker, not the function's, wants.
    #[error("trigger \"{trigger}\" of table \"{table}\" {why}")]
    UnfitTrigger {
        /// The trigger.
        trigger: String,
        /// A table of the extension.
        table: String,
        /// A clause.
        why: &'static str,
    },
    /// The catalogs never stood still for long enough.
    #[error("could not run a statement: the system catalogs change all the time")]
    Unsettled,
    /// A write on a standby.
    #[error("cannot execute {function}() during recovery")]
    InRecovery {
        /// The SQL function that was called.
        function: &'static str,
    },
    /// A write in a transaction that may not.
    #[error("cannot execute {function}() in a read-only transaction")]
    ReadOnlyTransaction {
        /// The SQL function that was called.
        function: &'static str,
    },
    /// The caller may not read files of the server.
    #[error("permission denied to read {}", printable(.what))]
    MayNotRead {
        /// The file or directory, or what kind of files.
        what: String,
        /// What does without, or what to do.
        hint: &'static str,
    },
    /// An argument that must have a value is NULL.
    #[error("{argument} must not be null")]
    NullArgument {
        /// Name of the argument, as in the function's signature.
        argument: &'static str,
        /// What to pass instead.
        hint: String,
    },
    /// An argument has a value that cannot be meant.
    #[error("{}", shown(.message))]
    InvalidArgument {
        /// What is wrong, naming the argument and its value.
        message: String,
        /// Which values are right.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// A row that a call refers to is not there.
    #[error("{kind} {key} does not exist")]
    NotFound {
        /// What was looked for: `backup`, `recovery`.
        kind: &'static str,
        /// Its key as the caller gave it.
        key: i64,
        /// Where the caller finds those that exist.
        hint: &'static str,
    },
    /// A policy that a call names is not there.
    #[error("backup policy \"{}\" does not exist", brief(.name))]
    UnknownPolicy {
        /// As the caller gave it.
        name: String,
        /// The policies that exist, for the hint.
        known: Vec<String>,
    },
    /// A recovery target that cannot be reached.
    #[error("{0}")]
    NotReachable(Box<Refusal>),
    /// A row that others see, and that the caller's transaction began too early to see.
    #[error("could not serialize access to {kind} {key}")]
    StaleSnapshot {
        /// What it is: `backup`, `recovery`.
        kind: &'static str,
        /// Its key as the caller gave it.
        key: i64,
    },
    /// A row is not in the state that the call needs.
    #[error("{}", shown(.message))]
    WrongState {
        /// What is the matter.
        message: String,
        /// Since when and why.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// Somebody tries to rewrite the ledger.
    #[error("{operation} on \"{table}\" is not allowed")]
    LedgerIsAppendOnly {
        /// The SQL command.
        operation: &'static str,
        /// The table it was to change.
        table: String,
        /// Why not.
        detail: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A trigger function on a table or at a time that it is not made for.
    #[error("{function}() was not called as the trigger that it is")]
    NotTheTrigger {
        /// The trigger function.
        function: &'static str,
    },
    /// A column that the SQL side promises is not there or is NULL: the library and the SQL objects do not fit together.
    #[error("unexpected answer to an internal query: {what}")]
    UnexpectedAnswer {
        /// What was expected.
        what: &'static str,
    },
    /// A type that the SQL side promises is another one.
    #[error("unexpected answer to an internal query: {0}")]
    UnexpectedType(#[from] TryFromDatumError),
    /// The archive cannot be read, or nothing says where it is.
    #[error("{}", shown(.0))]
    Archive(String),
    /// A file of the archive could not be fetched; others may be.
    #[error("{}", shown(.0))]
    Fetch(String),
    /// A transaction that holds the ledger's chain is to be prepared.
    #[error("cannot PREPARE a transaction that has written to the ledger of pg_backstop")]
    CannotPrepare,
    /// PostgreSQL did not wait for a lock of another transaction any longer, in a background process.
    #[error("{}", shown(.0))]
    LockNotAvailable(String),
    /// The worker does not wait for a transaction that may last.
    #[error(
        "nothing was written to the ledger, because {} has written to it and is still open",
        by.map_or_else(|| "another transaction".to_owned(), |pid| format!("the transaction of process {pid}"))
    )]
    ChainIsHeld {
        /// The process that holds the chain; none where that is over by now.
        by: Option<i32>,
    },
    /// The worker does not wait for a transaction that may last.
    #[error(
        "nothing new is recorded of the archive, because {}, such as one that has called acknowledge_wal_gap(), is still open",
        by.map_or_else(|| "another transaction".to_owned(), |pid| format!("the transaction of process {pid}"))
    )]
    FindingsAreHeld {
        /// The process in the way; none where that is over by now.
        by: Option<i32>,
    },
    /// The server's own files or settings are not as they should be.
    #[error("{}", shown(.0))]
    Server(String),
    /// PostgreSQL raised an error, or this library panicked, in a background process.
    #[error("{}", shown(.0))]
    Raised(String),
    /// The postmaster did not start the worker.
    #[error("{}", shown(.0))]
    WorkerNotStarted(String),
    /// The SQL objects are not those of this library.
    #[error("the library is pg_backstop {library}, its SQL objects in this database are {objects}")]
    OtherVersion {
        /// Version of the library.
        library: &'static str,
        /// Version of the extension in this database.
        objects: String,
    },
    /// Memory has run out.
    #[error("out of memory")]
    OutOfMemory {
        /// What was asked for in vain.
        bytes: usize,
    },
    /// SPI refused.
    #[error("internal query failed: {0}")]
    Spi(#[from] SpiError),
}

/// Result of what may fail for the caller to see.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::InvalidArgument`]; the texts say what is wrong, which values are right and what to do.
    pub fn invalid(message: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::InvalidArgument {
            message: message.into(),
            detail: detail.into(),
            hint: hint.into(),
        }
    }

    /// An [`Error::Server`] about a file of the server's.
    pub fn server_file(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Server(format!("{}: {error}", path.display()))
    }

    fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            Self::Archive(_) | Self::Fetch(_) => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::WorkerNotStarted(_) => PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            Self::OtherVersion { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::Server(_) => PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
            Self::CannotPrepare => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            Self::ChainIsHeld { .. } | Self::FindingsAreHeld { .. } | Self::LockNotAvailable(_) => {
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            }
            Self::BeingDropped | Self::Unsettled => PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            Self::UnsafeSchema { .. }
            | Self::OwnerIsNoSuperuser { .. }
            | Self::ForeignObject { .. }
            | Self::ForeignTrigger { .. }
            | Self::UnfitTrigger { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NotInstalled | Self::UnknownPolicy { .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Self::InRecovery { .. } | Self::ReadOnlyTransaction { .. } => {
                PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION
            }
            Self::MayNotRead { .. } => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NullArgument { .. } => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Self::InvalidArgument { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::NotReachable(refusal) if refusal.is_about_absence() => PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            Self::NotReachable(refusal) if refusal.is_about_state() => {
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::NotReachable(_) => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            // What PL/pgSQL's SELECT INTO STRICT raises, so that callers there may use WHEN no_data_found.
            Self::NotFound { .. } => PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            Self::StaleSnapshot { .. } => PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            Self::WrongState { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::LedgerIsAppendOnly { .. } => PgSqlErrorCode::ERRCODE_RESTRICT_VIOLATION,
            Self::NotTheTrigger { .. } => PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            Self::OutOfMemory { .. } => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            Self::UnexpectedAnswer { .. } | Self::UnexpectedType(_) | Self::Spi(_) | Self::Raised(_) => {
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
            }
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::CannotPrepare => {
                Some("Until somebody ended the prepared transaction, nobody else could record anything.".into())
            }
            Self::UnsafeSchema { schema, who, .. } => Some(format!(
                "What {who} puts into schema \"{schema}\", or in its place, could run with the rights of the extension's owner."
            )),
            Self::OwnerIsNoSuperuser { .. } => Some("Its statements run with the rights of its owner.".into()),
            Self::ForeignObject { .. } => Some(
                "A statement of the extension found it under the name of one of its own objects, and did not run."
                    .into(),
            ),
            Self::ForeignTrigger { .. } | Self::UnfitTrigger { .. } => {
                Some("It would run with the rights of the extension's owner.".into())
            }
            Self::InRecovery { .. } => {
                Some("This server is a standby or is still recovering, so it cannot write its ledger.".into())
            }
            Self::ReadOnlyTransaction { .. } => Some("It writes to the tables of the extension.".into()),
            Self::MayNotRead { .. } => {
                Some("Reading files of the server takes the privileges of pg_read_server_files.".into())
            }
            Self::NotFound { kind, key, .. } => Some(format!("No {kind} with the id {key} is in the ledger.")),
            Self::UnknownPolicy { name, .. } => Some(format!(
                "No row of backup_policies has the policy_name \"{}\".",
                brief(name)
            )),
            Self::NotReachable(refusal) => Some(refusal.detail()),
            Self::InvalidArgument { detail, .. } | Self::WrongState { detail, .. } => Some(detail.clone()),
            Self::LedgerIsAppendOnly { detail, .. } => Some((*detail).into()),
            Self::OutOfMemory { bytes } => Some(format!("Failed on request of size {bytes}.")),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::CannotPrepare => Some("Record backups and recoveries in a transaction of their own.".into()),
            Self::NotInstalled => Some("Run CREATE EXTENSION pg_backstop in this database.".into()),
            Self::BeingDropped | Self::Unsettled => Some("Try again.".into()),
            Self::UnsafeSchema { .. } => Some(
                "Let superusers alone own the schema and create in it, or drop the extension and run: CREATE SCHEMA backstop; \
                 CREATE EXTENSION pg_backstop SCHEMA backstop"
                    .into(),
            ),
            Self::OwnerIsNoSuperuser { .. } => {
                Some("Make it one with ALTER ROLE … SUPERUSER, or give what it owns to one with REASSIGN OWNED.".into())
            }
            Self::ForeignObject { .. } => Some("Find out who changed the extension's schema, and drop what they made.".into()),
            Self::ForeignTrigger { .. } | Self::UnfitTrigger { .. } => {
                Some("Drop it, and revoke TRIGGER and REFERENCES on the table from all who are no superusers.".into())
            }
            Self::InRecovery { .. } => {
                Some("Run it on the primary: the row then reaches this server by replication.".into())
            }
            Self::ReadOnlyTransaction { .. } => {
                Some("Begin a transaction that is READ WRITE; see also default_transaction_read_only.".into())
            }
            Self::NullArgument { hint, .. } | Self::InvalidArgument { hint, .. } | Self::WrongState { hint, .. } => {
                Some(hint.clone())
            }
            Self::MayNotRead { hint, .. } => Some((*hint).into()),
            Self::NotReachable(refusal) => Some(refusal.hint()),
            Self::StaleSnapshot { .. } => Some("Try again in a new transaction.".into()),
            Self::NotFound { hint, .. } | Self::LedgerIsAppendOnly { hint, .. } => Some((*hint).into()),
            Self::UnknownPolicy { known, .. } if known.is_empty() => {
                Some("There is no policy yet: insert one into backup_policies, or leave policy_name out.".into())
            }
            Self::UnknownPolicy { known, .. } => {
                let named: Vec<String> = known.iter().take(NAMED).map(|name| brief(name)).collect();
                let more = if known.len() > NAMED { " and others" } else { "" };
                Some(format!(
                    "Existing policies: {}{more}. Or leave policy_name out.",
                    named.join(", ")
                ))
            }
            Self::UnexpectedAnswer { .. } | Self::UnexpectedType(_) => Some(
                "The library and the SQL objects may be of different versions: run ALTER EXTENSION pg_backstop UPDATE."
                    .into(),
            ),
            Self::OtherVersion { .. } => Some("Run ALTER EXTENSION pg_backstop UPDATE in this database.".into()),
            _ => None,
        }
    }
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let detail = error.detail().map(|detail| shown(&detail));
        let hint = error.hint().map(|hint| shown(&hint));
        report(error.sqlstate(), error.to_string(), detail, hint)
    }
}

/// A report whose texts both the server's log and the client can have.
fn report(code: PgSqlErrorCode, message: String, detail: Option<String>, hint: Option<String>) -> ErrorReport {
    let mut report = ErrorReport::new(code, sayable(message), "pg_backstop");
    if let Some(detail) = detail {
        report = report.set_detail(sayable(detail));
    }
    if let Some(hint) = hint {
        report = report.set_hint(sayable(hint));
    }
    report
}

/// Tells the caller, or the server's log, something that is no error.
pub fn tell(level: PgLogLevel, message: String, detail: Option<String>, hint: Option<String>) {
    let code = match level {
        PgLogLevel::WARNING => PgSqlErrorCode::ERRCODE_WARNING,
        _ => PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
    };
    report(code, message, detail, hint).report(level);
}

/// Runs what may raise an error of PostgreSQL's own, which then goes on, but in characters that can be said: pgrx takes the server's
/// messages for UTF-8 and hands them on so, whatever the database's encoding is.
pub fn sayably<R>(body: impl FnOnce() -> R) -> R {
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|error| {
            let raised: &ErrorReportWithLevel = match &error {
                CaughtError::PostgresError(raised) | CaughtError::ErrorReport(raised) => raised,
                CaughtError::RustPanic { ereport, .. } => ereport,
            };
            let (message, detail, hint) = (raised.message(), raised.detail(), raised.hint());
            let can_be_said = |text: &&str| sayable((*text).to_owned()) == *text;
            if ![Some(message), detail, hint].iter().flatten().all(can_be_said) {
                let text = |text: Option<&str>| text.map(str::to_owned);
                let code = raised.sql_error_code();
                report(code, message.to_owned(), text(detail), text(hint)).report(PgLogLevel::ERROR);
            }
            error.rethrow()
        })
        .execute()
}
