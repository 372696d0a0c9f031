-- PUBLIC gets nothing, and nobody what the default privileges of the one who runs CREATE EXTENSION would give them: whoever has
-- TRIGGER or REFERENCES on a table of ours has code of theirs run by our statements. pg_monitor reads every table and view, and calls every function that only reads: those are declared
-- STABLE or IMMUTABLE, so a function that writes must be VOLATILE. It goes by what belongs to the extension, so that no
-- object is forgotten.

-- What follows runs as a superuser, and must not run what somebody has put into the extension's schema beforehand. Nothing is
-- created any more, so no schema needs to come first.
SET LOCAL search_path TO pg_catalog, pg_temp;

DO $grants$
DECLARE
    member record;
    grantee text;
BEGIN
    FOR member IN
        SELECT class.relkind, class.oid::regclass AS name, class.reltype::regtype AS row_type,
            ARRAY(SELECT DISTINCT privilege.grantee::regrole::text FROM aclexplode(class.relacl) AS privilege
                  WHERE privilege.grantee <> class.relowner AND privilege.grantee <> 0) AS grantees
        FROM pg_depend AS part
        JOIN pg_extension AS extension ON extension.oid = part.refobjid AND extension.extname = 'pg_backstop'
        JOIN pg_class AS class ON class.oid = part.objid AND part.classid = 'pg_class'::regclass
        WHERE part.refclassid = 'pg_extension'::regclass AND part.deptype = 'e'
    LOOP
        IF member.relkind = 'S' THEN
            EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM PUBLIC', member.name);
            FOREACH grantee IN ARRAY member.grantees LOOP
                EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM %s', member.name, grantee);
            END LOOP;
        ELSIF member.relkind IN ('r', 'v', 'm', 'p') THEN
            EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', member.name);
            FOREACH grantee IN ARRAY member.grantees LOOP
                EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', member.name, grantee);
            END LOOP;
            -- A column or a function of this type, made by anybody, would keep the extension from being dropped or upgraded.
            EXECUTE format('REVOKE ALL ON TYPE %s FROM PUBLIC', member.row_type);
            EXECUTE format('GRANT SELECT ON TABLE %s TO pg_monitor', member.name);
        END IF;
    END LOOP;
    FOR member IN
        SELECT function.oid::regprocedure AS name,
            function.provolatile IN ('s', 'i') AND function.prorettype <> 'trigger'::regtype AS only_reads,
            ARRAY(SELECT DISTINCT privilege.grantee::regrole::text FROM aclexplode(function.proacl) AS privilege
                  WHERE privilege.grantee <> function.proowner AND privilege.grantee <> 0) AS grantees
        FROM pg_depend AS part
        JOIN pg_extension AS extension ON extension.oid = part.refobjid AND extension.extname = 'pg_backstop'
        JOIN pg_proc AS function ON function.oid = part.objid AND part.classid = 'pg_proc'::regclass
        WHERE part.refclassid = 'pg_extension'::regclass AND part.deptype = 'e'
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member.name);
        FOREACH grantee IN ARRAY member.grantees LOOP
            EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %s', member.name, grantee);
        END LOOP;
        IF member.only_reads THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO pg_monitor', member.name);
        END IF;
    END LOOP;
    FOR member IN
        SELECT type.oid::regtype AS name
        FROM pg_depend AS part
        JOIN pg_extension AS extension ON extension.oid = part.refobjid AND extension.extname = 'pg_backstop'
        JOIN pg_type AS type ON type.oid = part.objid AND part.classid = 'pg_type'::regclass
        WHERE part.refclassid = 'pg_extension'::regclass AND part.deptype = 'e' AND type.typtype = 'd'
    LOOP
        EXECUTE format('REVOKE ALL ON DOMAIN %s FROM PUBLIC', member.name);
        -- Whoever reads a table may also keep what was read in one of their own.
        EXECUTE format('GRANT USAGE ON DOMAIN %s TO pg_monitor', member.name);
    END LOOP;
END
$grants$;
