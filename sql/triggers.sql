-- Triggers fire in the order of their names: the ledger takes down what all others have made of a row.

CREATE TRIGGER check_schedules BEFORE INSERT OR UPDATE ON backup_policies
    FOR EACH ROW EXECUTE FUNCTION check_schedules();

CREATE TRIGGER ledger_lock BEFORE INSERT OR UPDATE OR DELETE ON backup_policies
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_lock();
CREATE TRIGGER ledger_lock BEFORE INSERT OR UPDATE OR DELETE ON backup_history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_lock();
CREATE TRIGGER ledger_lock BEFORE INSERT OR UPDATE OR DELETE ON recovery_history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_lock();

CREATE TRIGGER zz_ledger_append BEFORE INSERT OR UPDATE OR DELETE ON backup_policies
    FOR EACH ROW EXECUTE FUNCTION ledger_append();
CREATE TRIGGER zz_ledger_append BEFORE INSERT OR UPDATE OR DELETE ON backup_history
    FOR EACH ROW EXECUTE FUNCTION ledger_append();
CREATE TRIGGER zz_ledger_append BEFORE INSERT OR UPDATE OR DELETE ON recovery_history
    FOR EACH ROW EXECUTE FUNCTION ledger_append();

CREATE TRIGGER ledger_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_refuse BEFORE TRUNCATE ON backup_policies
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_refuse BEFORE TRUNCATE ON backup_history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_refuse BEFORE TRUNCATE ON recovery_history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
