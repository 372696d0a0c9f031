//! The extension: magic, start-up and the order of the SQL. No logic lives here.

mod api;
mod catalog;
mod error;

::pgrx::pg_module_magic!(name = c"pg_backstop", version = c"0.1.0");

// Functions come where they are needed: the triggers need theirs and the tables.
::pgrx::extension_sql_file!("../sql/tables.sql", name = "tables");
::pgrx::extension_sql_file!(
    "../sql/triggers.sql",
    name = "triggers",
    requires = [
        "tables",
        api::ledger::ledger_lock,
        api::ledger::ledger_append,
        api::ledger::ledger_refuse
    ]
);
