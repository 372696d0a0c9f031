//! The extension: magic, start-up and the order of the SQL. No logic lives here.

mod access;
mod api;
mod assessment;
mod backtrace;
mod base_backup;
mod catalog;
mod compat;
mod detection;
mod error;
mod foreign_text;
mod heartbeat;
mod home;
mod inspection;
mod life;
mod locks;
mod memory;
mod planning;
mod prediction;
mod preparation;
mod process;
mod restore_command;
mod scratch;
mod server;
mod settings;
mod shmem;
mod transaction;
mod verification;
mod worker;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name = c"pg_backstop", version = c"0.1.0");

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: plain variables of the server, set before any library is loaded.
    let (upgrading, preloading) = unsafe {
        (
            pg_sys::IsBinaryUpgrade,
            pg_sys::process_shared_preload_libraries_in_progress,
        )
    };
    backtrace::never_take_any();
    if upgrading {
        return;
    }
    settings::define(preloading);
    if preloading {
        shmem::reserve();
        life::reserve();
        worker::register();
    }
}

// Before all else.
::pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
// Tables first, then what stands on them. Functions go where something needs them: before their triggers and their views.
::pgrx::extension_sql_file!("../sql/tables.sql", name = "tables");
::pgrx::extension_sql_file!(
    "../sql/triggers.sql",
    name = "triggers",
    requires = [
        "tables",
        api::ledger_trigger::ledger_mark,
        api::ledger_trigger::ledger_append,
        api::ledger_trigger::ledger_refuse,
        api::policy::check_schedules
    ]
);
::pgrx::extension_sql_file!(
    "../sql/views/wal_archive_gaps.sql",
    name = "wal_archive_gaps",
    requires = [api::readiness::list_wal_archive_gaps]
);
::pgrx::extension_sql_file!(
    "../sql/views/recovery_windows.sql",
    name = "recovery_windows",
    requires = [api::readiness::list_recovery_windows]
);
::pgrx::extension_sql_file!(
    "../sql/views/recovery_readiness.sql",
    name = "recovery_readiness",
    requires = [api::readiness::assess_recovery_readiness]
);
::pgrx::extension_sql_file!(
    "../sql/views/v_rto_prediction.sql",
    name = "v_rto_prediction",
    requires = [api::rto::list_rto_predictions]
);
::pgrx::extension_sql_file!("../sql/views/v_archiver_status.sql", name = "v_archiver_status");
::pgrx::extension_sql_file!(
    "../sql/views/v_worker_status.sql",
    name = "v_worker_status",
    requires = [api::worker::worker_status]
);
::pgrx::extension_sql_file!("../sql/views/v_backup_status.sql", requires = ["tables"]);
::pgrx::extension_sql_file!(
    "../sql/views/v_policy_status.sql",
    requires = ["tables", api::policy::cron_next, api::objectives::current_objectives]
);
::pgrx::extension_sql_file!(
    "../sql/views/v_objective_compliance.sql",
    requires = [
        api::objectives::list_objective_compliance,
        api::objectives::current_objectives
    ]
);
::pgrx::extension_sql_file!(
    "../sql/views/v_rto_rpo_monitoring.sql",
    requires = ["tables", api::objectives::current_objectives]
);
::pgrx::extension_sql_file!("../sql/views/v_wal_volume.sql", requires = ["tables"]);
// Last of all, so that it finds every object.
::pgrx::extension_sql_file!("../sql/grants.sql", finalize);
