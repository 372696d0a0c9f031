CREATE TRIGGER check_schedules BEFORE INSERT OR UPDATE ON backup_policies
    FOR EACH ROW EXECUTE FUNCTION check_schedules();

CREATE TRIGGER ledger_mark BEFORE INSERT OR UPDATE ON backup_policies
    FOR EACH ROW EXECUTE FUNCTION ledger_mark();
CREATE TRIGGER ledger_mark BEFORE INSERT OR UPDATE ON backup_history
    FOR EACH ROW EXECUTE FUNCTION ledger_mark();
CREATE TRIGGER ledger_mark BEFORE INSERT OR UPDATE ON recovery_history
    FOR EACH ROW EXECUTE FUNCTION ledger_mark();
CREATE TRIGGER ledger_mark BEFORE INSERT OR UPDATE ON ledger_pending
    FOR EACH ROW EXECUTE FUNCTION ledger_mark();

-- Events are appended when the transaction commits: only for what came about, whatever ON CONFLICT, other triggers and savepoints
-- have made of it; and nobody waits for a transaction that is left open. A row that a dump brings along has its event already.
CREATE CONSTRAINT TRIGGER ledger_append_insert AFTER INSERT ON backup_policies DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.last_event_id OPERATOR(pg_catalog.<) 1::bigint) EXECUTE FUNCTION ledger_append();
CREATE CONSTRAINT TRIGGER ledger_append_insert AFTER INSERT ON backup_history DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.last_event_id OPERATOR(pg_catalog.<) 1::bigint) EXECUTE FUNCTION ledger_append();
CREATE CONSTRAINT TRIGGER ledger_append_insert AFTER INSERT ON recovery_history DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.last_event_id OPERATOR(pg_catalog.<) 1::bigint) EXECUTE FUNCTION ledger_append();
CREATE CONSTRAINT TRIGGER ledger_append_insert AFTER INSERT ON ledger_pending DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_append();
CREATE CONSTRAINT TRIGGER ledger_append AFTER UPDATE OR DELETE ON backup_policies DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_append();
CREATE CONSTRAINT TRIGGER ledger_append AFTER UPDATE OR DELETE ON backup_history DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_append();
CREATE CONSTRAINT TRIGGER ledger_append AFTER UPDATE OR DELETE ON recovery_history DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_append();

CREATE TRIGGER ledger_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_refuse BEFORE TRUNCATE ON backup_policies
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_refuse BEFORE TRUNCATE ON backup_history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_refuse BEFORE TRUNCATE ON recovery_history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
