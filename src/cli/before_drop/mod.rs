//! `pgwake before-drop`: which functions of the user's run before something is dropped. The schema `pgwake`
//! keeps their register; this writes it and prints it.

mod arguments;

use super::advice::{When, with_advice};
use super::values::Format;
use super::{Failure, code, install, query};
pub(crate) use arguments::BeforeDrop;
use pgwake::json::{self, JsonValue};
use pgwake::pq::Connection;
use pgwake::{Error, SqlState};
use std::io::Write;
use std::time::SystemTime;

pub(crate) fn run(dsn: &str, format: Format, arguments: &BeforeDrop) -> Result<(), Failure> {
    let mut connection = query::connect(dsn)?;
    install::require(&mut connection, When::Registering)?;
    match &arguments.handler {
        None => list(&mut connection, format),
        Some(handler) if arguments.remove => remove(&mut connection, handler),
        Some(handler) => register(&mut connection, handler, arguments),
    }
}

fn failed(error: Error) -> Failure {
    Failure::Running(with_advice(When::Registering, &error.message, error.sqlstate))
}

fn register(connection: &mut Connection, handler: &str, arguments: &BeforeDrop) -> Result<(), Failure> {
    let signature = resolve(connection, handler)?;
    // A name of the list holds no comma: there the shell's word was split.
    let sql = "SELECT pgwake.before_drop($1::pg_catalog.regprocedure, \
        pg_catalog.string_to_array($2, ','), pg_catalog.string_to_array(nullif($3, ''), ','))";
    let (types, schemas) = (arguments.types.join(","), arguments.schemas.join(","));
    query::rows(connection, sql, &[&signature, &types, &schemas]).map_err(failed)?;
    say_done!("{signature} runs before each drop of: {types}");
    Ok(())
}

fn remove(connection: &mut Connection, handler: &str) -> Result<(), Failure> {
    let rows = query::rows(connection, "SELECT pgwake.remove_before_drop($1)", &[handler]).map_err(failed)?;
    if rows.iter().any(|row| row[0] == "t") {
        say_done!("{handler} does not run any more");
        return Ok(());
    }
    Err(Failure::Running(format!("{handler} is no handler: name one as `pgwake before-drop --list` does")))
}

/// The function of this name that takes a target, with all that `regprocedure` wants to know.
fn resolve(connection: &mut Connection, handler: &str) -> Result<String, Failure> {
    let name = handler.trim();
    let signature = if name.ends_with(')') { name.to_string() } else { format!("{name}(pgwake.ddl_target)") };
    let sql = "SELECT pg_catalog.to_regprocedure($1) IS NOT NULL";
    // From 17 on the server says it by NULL, and parse_ident in other words.
    let malformed = |error: Error| match code(&error) {
        Some("42601" | "42602" | "22P02" | "22023") => {
            let message = format!("{handler} is not the name of a function");
            Failure::Running(with_advice(When::Registering, &message, SqlState::new("42602")))
        }
        _ => failed(error),
    };
    if query::rows(connection, sql, &[&signature]).map_err(malformed)?.iter().any(|row| row[0] == "t") {
        return Ok(signature);
    }
    let (name, _) = name.split_once('(').unwrap_or((name, ""));
    let sql = "SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::text, ', ') \
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace, \
        pg_catalog.parse_ident($1) AS part \
        WHERE p.proname = part[pg_catalog.cardinality(part)] AND CASE WHEN pg_catalog.cardinality(part) > 1 \
        THEN n.nspname = part[1] ELSE pg_catalog.pg_function_is_visible(p.oid) END";
    let others = query::rows(connection, sql, &[name]).map_err(malformed)?.concat().concat();
    Err(Failure::Running(if others.is_empty() {
        format!("there is no function {signature}: make it first, CREATE FUNCTION {signature} RETURNS void …")
    } else {
        format!("there is no function {signature}, but {others}: a handler takes one target")
    }))
}

fn list(connection: &mut Connection, format: Format) -> Result<(), Failure> {
    let sql = "SELECT handler, array_to_json(types)::text, array_to_json(schemas)::text, \
        concat_ws(' ', '--types ''' || array_to_string(types, ',') || '''', \
        '--schemas ''' || array_to_string(schemas, ',') || '''') FROM pgwake.drop_handler ORDER BY 1";
    let mut out = std::io::stdout().lock();
    for row in query::rows_by_system(connection, sql).map_err(failed)? {
        let [handler, types, schemas, options] = row.as_slice() else { continue };
        match format {
            Format::Text => writeln!(out, "{handler}  {options}")?,
            Format::Json => {
                let array = |text: &str| text.parse().unwrap_or(JsonValue::Null);
                let fields = [
                    ("event", "handler".into()),
                    ("at", json::rfc3339(SystemTime::now()).into()),
                    ("handler", handler.as_str().into()),
                    ("types", array(types)),
                    ("schemas", array(schemas)),
                ];
                let fields = fields.map(|(name, value)| (name.to_string(), value));
                writeln!(out, "{}", JsonValue::Object(fields.into_iter().collect()))?;
            }
        }
    }
    Ok(out.flush()?)
}
