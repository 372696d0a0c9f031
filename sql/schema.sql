-- Before anything is made: the extension's statements run as a superuser and name its objects by their schema, so nobody else may
-- own that schema or create in it. src/catalog/trust.rs asks the same in each call, since owners and privileges change. And what
-- somebody has put there beforehand could fit a call in the scripts that follow better than what is meant.
DO $schema$
DECLARE
    path text := pg_catalog.current_setting('search_path');
    place record;
    intruder record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT schema.oid, schema.nspname, schema.nspacl, schema.nspowner, database.datdba INTO STRICT place
    FROM pg_extension AS extension
    JOIN pg_namespace AS schema ON schema.oid = extension.extnamespace
    JOIN pg_database AS database ON database.datname = current_database()
    WHERE extension.extname = 'pg_backstop';

    SELECT CASE WHEN role.oid IS NULL THEN 'PUBLIC' ELSE format('role "%s"', role.rolname) END AS who, claim.why INTO intruder
    FROM (
        SELECT 1 AS rank, place.nspowner AS role,
            CASE WHEN place.nspowner = 'pg_database_owner'::regrole
                 THEN 'owns the database, and so what belongs to pg_database_owner,' ELSE 'owns it' END AS why
        UNION ALL
        SELECT 2, privilege.grantee, 'may create objects in it'
        FROM aclexplode(place.nspacl) AS privilege
        WHERE privilege.privilege_type = 'CREATE'
        UNION ALL
        SELECT 3, function.proowner, 'owns functions in it' FROM pg_proc AS function WHERE function.pronamespace = place.oid
        UNION ALL
        SELECT 3, operator.oprowner, 'owns operators in it' FROM pg_operator AS operator WHERE operator.oprnamespace = place.oid
    ) AS claim
    LEFT JOIN pg_roles AS role
        ON role.oid = CASE WHEN claim.role = 'pg_database_owner'::regrole THEN place.datdba ELSE claim.role END
    WHERE role.rolsuper IS NOT TRUE
    ORDER BY claim.rank, who
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('extension "pg_backstop" is not safe in schema "%s": %s %s and is no superuser',
                             place.nspname, intruder.who, intruder.why),
            DETAIL = format('What %s puts into schema "%s", or in its place, could run with the rights of the extension''s owner.',
                            intruder.who, place.nspname),
            HINT = 'Run: CREATE SCHEMA backstop; CREATE EXTENSION pg_backstop SCHEMA backstop';
    END IF;
    PERFORM pg_catalog.set_config('search_path', path, true);
END
$schema$;
