-- What a command is about to drop, while it is still there. The server itself says so: the command runs in a
-- subtransaction, sql_drop lists what went, and all of it is rolled back. Where the text of the command is
-- not known for certain, or does more than drop, nothing is rehearsed, and 13_before_drop.sql sees to that.
--
-- With the extension pgwake_ddl, which does the same in C and needs no text, the list is its own.

-- The statements of a text, as the server's lexer separates them; and for each what is left without comments,
-- strings and quoted names, in capitals, each space one. One of very many words is not looked at.
CREATE OR REPLACE FUNCTION pgwake.statements_of(source text, OUT statement text, OUT words text)
    RETURNS SETOF record LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  escape text := chr(92);
  newline text := chr(10);
  return text := chr(13);
  pattern text := format('''|"|[$][[:alnum:]_]*[$]|--|/[*]|[*]/|;|[%1$s%2$s]|%3$s|[^''"$/*;%1$s%2$s%3$s-]+|.',
    newline, return, escape || escape);
  always_escapes bool := current_setting('standard_conforming_strings') = 'off';
  has_escapes bool := false;
  escaped bool := false;          -- in a string: the next character stands for itself
  state text := '';               -- what a piece lies in: a quote, a comment, or nothing
  was text;
  depth int;
  between text := 'x';            -- what has come since the last string
  last text := '';
  closes_at int;
  begins_at int := 1;
  ends_at int := 1;
  pieces int := 0;
  piece text;
BEGIN
  words := '';
  FOR piece IN SELECT m[1] FROM regexp_matches(source, pattern, 'g') m UNION ALL SELECT NULL LOOP
    was := state;
    IF piece IS NULL OR state = '' AND piece = ';' THEN
      words := regexp_replace(regexp_replace(words, '[[:space:]]+', ' ', 'g'), ' ?[.] ?', '.', 'g');
      words := upper(btrim(words));
      statement := substr(source, begins_at, ends_at - begins_at);
      IF words <> '' THEN
        RETURN NEXT;
      END IF;
      begins_at := ends_at + 1;
      words := '';
      between := 'x';
      pieces := 0;
    ELSIF state = '' THEN
      -- A string that goes on after a line break, or after a doubled quote, is of the kind that it was.
      IF piece = '''' AND between ~ '[^[:space:]]' THEN
        has_escapes := always_escapes OR last ~* '(^|[^[:alnum:]_$])E$';
      END IF;
      -- A name may hold dollars, and other letters than those of ASCII.
      IF piece IN ('''', '"', '--', '/*')
         OR piece ~ '^[$].*[$]$' AND last !~ '([[:alnum:]_$]|[^[:cntrl:] -~])$' THEN
        state := piece;
        depth := 1;
        -- The last dollar of $1$$ belongs to what ends there.
        closes_at := ends_at + length(piece);
        closes_at := closes_at + length(piece) - 1 + CASE WHEN starts_with(piece, '$')
          THEN strpos(substr(source, closes_at), piece) ELSE 0 END;
      END IF;
      between := CASE WHEN between ~ '[^[:space:]]' THEN 'x' ELSE piece END;
      words := CASE WHEN pieces > 20000 THEN '-'
        ELSE words || CASE state WHEN '' THEN piece WHEN '"' THEN ' _ ' ELSE ' ' END END;
    ELSIF state = '''' THEN
      IF escaped THEN
        escaped := false;
      ELSIF has_escapes AND piece = escape THEN
        escaped := true;
      ELSIF piece = '''' THEN
        state := '';
        between := '';
      END IF;
    ELSIF state = '/*' THEN
      depth := depth + CASE piece WHEN '/*' THEN 1 WHEN '*/' THEN -1 ELSE 0 END;
      state := CASE depth WHEN 0 THEN '' ELSE state END;
    ELSIF state = '"' AND piece = '"' OR state = '--' AND piece IN (newline, return)
        OR starts_with(state, '$') AND ends_at + length(piece) >= closes_at THEN
      state := '';
    END IF;
    last := CASE WHEN was = '' AND state = '' THEN piece ELSE '' END;
    pieces := pieces + 1;
    ends_at := ends_at + length(piece);
  END LOOP;
END $pgwake$;

-- The DROP that is running, or the ALTER that does nothing but drop: its text and its words. `tail` is the
-- context of the trigger that asks without the line of its own, `nth` the command's place among those with
-- its tag that the client has sent in one string. Refuses where any of it is not certain.
CREATE OR REPLACE FUNCTION pgwake.running_drop(tag text, tail text, nth int, OUT statement text, OUT words
    text) LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  source text;
  texts text[];
  all_words text[];
  has_more bool;
BEGIN
  IF pgwake.is_in_extension() THEN
    RAISE EXCEPTION 'the command runs in the script of an extension, and its text is not known'
      USING ERRCODE = 'feature_not_supported', HINT = 'Drop it before, by a command of its own.';
  ELSIF tail = '' THEN
    source := current_query();
  ELSIF starts_with(tail, 'SQL statement "') THEN
    source := substr(tail, length('SQL statement "') + 1);
    source := left(source, coalesce(nullif(strpos(source, '"' || chr(10) || 'PL/'), 0), length(source)) - 1);
  ELSE
    RAISE EXCEPTION 'the command runs in a function in SQL, and its text is not known'
      USING ERRCODE = 'feature_not_supported', HINT = 'Run it by itself, or in a function in PL/pgSQL.';
  END IF;
  SELECT array_agg(s.statement ORDER BY n) FILTER (WHERE is_like), array_agg(s.words ORDER BY n) FILTER (WHERE
      is_like), bool_or(s.words ~ '^(COMMIT|ROLLBACK|END|ABORT|SAVEPOINT|RELEASE|PREPARE)( |$)')
    INTO texts, all_words, has_more
    FROM pgwake.statements_of(source) WITH ORDINALITY s (statement, words, n),
      starts_with(regexp_replace(s.words, '^DROP (TRUSTED )?PROCEDURAL ', 'DROP '), tag || ' ') AS is_like;
  IF texts IS NULL THEN
    RAISE EXCEPTION 'the command does not stand in the text that was sent'
      USING ERRCODE = 'feature_not_supported', HINT = 'Send it by itself.';
  ELSIF cardinality(texts) > 1 AND (has_more OR tail <> '') OR nth > cardinality(texts) THEN
    RAISE EXCEPTION 'the command was sent in one string with others like it: which one runs is not certain'
      USING ERRCODE = 'feature_not_supported', HINT = 'Send each command by itself.';
  END IF;
  statement := texts[CASE tail WHEN '' THEN nth ELSE 1 END];
  words := all_words[CASE tail WHEN '' THEN nth ELSE 1 END];
  IF words NOT LIKE 'DROP %' AND (position('(' IN words) > 0
      OR words !~ ('^ALTER (FOREIGN )?(TABLE|TYPE|DOMAIN|VIEW|MATERIALIZED VIEW) (IF EXISTS )?(ONLY )?[^ ]+'
        '( [*])? DROP [^,]+(, ?DROP [^,]+)*$')) THEN
    RAISE EXCEPTION 'the command does more than drop'
      USING ERRCODE = 'feature_not_supported', HINT = 'Put what it drops into a command of its own.';
  END IF;
END $pgwake$;

-- Runs the statement and rolls it back: what it dropped, and the seal of on_dropped(). The tables are locked
-- again behind that, as the DROP will: what others commit until then can be read, and nothing comes after it.
-- Errors are those of the statement, or that somebody may drop a table and not lock it.
CREATE OR REPLACE FUNCTION pgwake.rehearse_drop(statement text, path text, OUT list text, OUT seal text)
    LANGUAGE plpgsql AS $pgwake$
DECLARE
  tables text;
BEGIN
  BEGIN
    PERFORM set_config('client_min_messages', 'error', true),
      set_config('pgwake.rehearsal', statement, true), set_config('search_path', path, true);
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'PGWAK', MESSAGE = '[]', DETAIL = '';
  EXCEPTION WHEN SQLSTATE 'PGWAK' THEN
    GET STACKED DIAGNOSTICS list = MESSAGE_TEXT, seal = PG_EXCEPTION_DETAIL;
  END;
  SELECT string_agg('ONLY ' || (o ->> 'identity'), ', ') INTO tables FROM json_array_elements(list::json) o
    WHERE o ->> 'object_type' = 'table' AND NOT (o ->> 'is_temp')::bool;
  IF tables IS NOT NULL THEN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tables);
  END IF;
END $pgwake$;

-- The targets on such a list, with what is known of the command.
CREATE OR REPLACE FUNCTION pgwake.targets_of(list text, tag text, words text, depth int)
    RETURNS SETOF pgwake.ddl_target LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN QUERY SELECT n::int, coalesce(o.command_tag, targets_of.tag), o.role, o.object_type, o.schema_name,
    o.object_name, o.column_name, o.identity, coalesce(o."exists", true),
    coalesce(o.if_exists, words LIKE '% IF EXISTS %'),
    coalesce(o.behavior, CASE WHEN words ~ ' CASCADE(,|$)' THEN 'cascade' WHEN words <> '' THEN 'restrict'
      END),
    o.classid, o.objid, o.objsubid, coalesce(o.relkind, c.relkind), o.is_temp, targets_of.depth
  FROM ROWS FROM (json_populate_recordset(NULL::pgwake.ddl_target, list::json)) WITH ORDINALITY
      o (ord, command_tag, role, object_type, schema_name, object_name, column_name, identity, "exists",
        if_exists, behavior, classid, objid, objsubid, relkind, is_temp, depth, n)
    LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
  ORDER BY n;
END $pgwake$;

-- What on_before_drop() has noted of the running command serves all triggers behind it. A nested command
-- notes its own: then the contexts differ.
CREATE OR REPLACE FUNCTION pgwake.ddl_targets(exact bool DEFAULT true) RETURNS SETOF pgwake.ddl_target
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  command jsonb := nullif(current_setting('pgwake.command', true), '')::jsonb;
  context text;
  s record;
BEGIN
  IF pgwake.has_extension() THEN
    RETURN QUERY EXECUTE 'SELECT ord, command_tag, role, object_type, schema_name, object_name, column_name,
      identity, "exists", if_exists, behavior, classid, objid, objsubid, relkind, is_temp,
      coalesce($2, depth + 1) FROM pgwake_ddl.targets($1)' USING exact, (command ->> 'depth')::int;
    RETURN;
  END IF;
  context := pgwake.context();
  IF pgwake.is_rehearsal() THEN
    -- What the trigger that asks does here is undone. It will ask again.
    RETURN;
  ELSIF command IS NULL OR right(context, length(command ->> 'tail')) <> command ->> 'tail' THEN
    RAISE EXCEPTION 'pgwake.ddl_targets() knows no command that is about to run'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Call it in the function of an event trigger on ddl_command_start, before other DDL.';
  ELSIF current_user <> command ->> 'user' THEN
    RAISE EXCEPTION 'pgwake.ddl_targets() runs the command as who calls it, and that is not who has sent it'
      USING ERRCODE = 'insufficient_privilege',
        HINT = 'Make the function that calls it SECURITY INVOKER, or install the extension pgwake_ddl.';
  ELSIF NOT exact OR command ->> 'tag' !~ '^(DROP|ALTER) ' THEN
    RAISE EXCEPTION 'without the extension pgwake_ddl the targets of % are known only of what it drops',
        command ->> 'tag'
      USING ERRCODE = 'feature_not_supported',
        HINT = 'Make the event trigger WHEN TAG IN (''DROP TABLE'', ...), or install the extension.';
  END IF;
  SELECT d.statement, d.words, r.list INTO s
    FROM pgwake.running_drop(command ->> 'tag', command ->> 'tail', (command ->> 'nth')::int) d,
      pgwake.rehearse_drop(d.statement, command ->> 'path') r;
  RETURN QUERY SELECT *
    FROM pgwake.targets_of(s.list, command ->> 'tag', s.words, (command ->> 'depth')::int);
END $pgwake$;
