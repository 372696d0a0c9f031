//! The extension: magic, start-up and the order of the SQL. No logic lives here.

mod api;
mod catalog;
mod error;

::pgrx::pg_module_magic!(name = c"pg_backstop", version = c"0.1.0");

// Tables first, then what stands on them. Functions go where something needs them: before their triggers and their views.
::pgrx::extension_sql_file!("../sql/tables.sql", name = "tables");
::pgrx::extension_sql_file!(
    "../sql/triggers.sql",
    name = "triggers",
    requires = [
        "tables",
        api::ledger::ledger_lock,
        api::ledger::ledger_append,
        api::ledger::ledger_refuse,
        api::policy::check_schedules
    ]
);
::pgrx::extension_sql_file!("../sql/views/v_backup_status.sql", requires = ["tables"]);
::pgrx::extension_sql_file!(
    "../sql/views/v_policy_status.sql",
    requires = ["tables", api::policy::cron_next]
);
::pgrx::extension_sql_file!("../sql/views/v_rto_rpo_monitoring.sql", requires = ["tables"]);
// Last of all, so that it finds every object.
::pgrx::extension_sql_file!("../sql/grants.sql", finalize);
