//! The extension: magic, start-up and the order of the SQL. No logic lives here.

::pgrx::pg_module_magic!(name = c"pg_backstop", version = c"0.1.0");
