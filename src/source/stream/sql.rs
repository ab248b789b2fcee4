//! What a replication session is asked in SQL, and how its answers are read. Walsenders run SQL besides the
//! commands of replication (manual, "Streaming Replication Protocol").

use crate::options::{Origin, StreamOptions, Streaming};
use crate::pq::ResultStatus;
use crate::session::Rows;
use std::fmt::Write;

/// The types that every server has, with what says how their values are written.
pub(super) const TYPES: &str = "SELECT oid, pg_catalog.format_type(oid, NULL), typcategory, typelem, \
    typname FROM pg_catalog.pg_type \
    WHERE typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid < 16384 AND typrelid = 0";

/// An answer, in text.
pub(super) struct Answered(pub(super) Rows);

impl Answered {
    /// It is none yet: what follows is COPY.
    pub(super) fn begin_copy(&self) -> bool {
        let status = self.0.as_ref().map(|rows| rows.status());
        matches!(status, Some(ResultStatus::CopyOut | ResultStatus::CopyBoth))
    }

    pub(super) fn rows(&self) -> usize {
        self.0.as_ref().map_or(0, |rows| rows.rows())
    }

    /// `None` for NULL and for what is not there.
    pub(super) fn text(&self, row: usize, column: usize) -> Option<String> {
        let value = self.0.as_ref()?.value(row, column)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub(super) fn number(&self, row: usize, column: usize) -> Option<i64> {
        self.text(row, column)?.parse().ok()
    }
}

/// A literal. The session has `standard_conforming_strings` on from the first command on.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As literals with commas between.
pub(super) fn quoted_list(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
}

fn array(texts: &[String]) -> String {
    format!("ARRAY[{}]::text[]", quoted_list(texts))
}

/// What holds for our session alone; and what the server's `wal_level` amounts to, and whether it is a
/// standby. Values are to be written as subscriptions of PostgreSQL ask for them (`libpqrcv_connect`,
/// libpqwalreceiver.c).
///
/// A caller who takes his time must not be taken for a dead one, so the server looks at the connection
/// instead of at us. That leaves out its user timeout, which Linux from 5.11 on counts for a peer that
/// acknowledges everything and has no room for more, too (`tcp_probe_timer`).
///
/// Messages alone come as they are: what cannot be converted would end the stream, and anybody may write it.
pub(super) fn settings(major: i32, has_messages_alone: bool) -> String {
    let mut settings = vec![
        ("standard_conforming_strings", "on"),
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        // The publication that is made for tables is known again by their names.
        ("quote_all_identifiers", "off"),
        ("timezone", "UTC"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("idle_session_timeout", "0"),
        // A role from which a policy hides rows is refused a snapshot, instead of getting a part of it.
        ("row_security", "off"),
        // As good as none. With 0, a server looks after each message whether we have written, which costs a
        // fifth of its rate (`WalSndWriteData`, walsender.c).
        ("wal_sender_timeout", "24d"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "0"),
    ];
    if major >= 17 {
        settings.push(("transaction_timeout", "0"));
    }
    // It stops waiting for us when it shuts down, as we stop waiting for it.
    if major >= 19 {
        settings.push(("wal_sender_shutdown_timeout", "5s"));
    }
    // A database in SQL_ASCII holds whatever bytes it was given, and has nothing that could convert them.
    let mut sql = format!(
        "SELECT pg_catalog.set_config('client_encoding', CASE \
           WHEN {has_messages_alone} OR pg_catalog.current_setting('server_encoding') = 'SQL_ASCII' \
           THEN pg_catalog.current_setting('server_encoding') ELSE 'UTF8' END, false); "
    );
    for (name, value) in settings {
        let _ = write!(sql, "SET {name} TO '{value}'; ");
    }
    // From 19 on a server raises it by itself, and another setting says to what.
    let wal_level = if major >= 19 { "effective_wal_level" } else { "wal_level" };
    sql + &format!("SELECT pg_catalog.current_setting('{wal_level}'), pg_catalog.pg_is_in_recovery()")
}

/// From 19 on, a server that keeps enough for a standby turns to logical decoding with its first slot.
pub(super) fn is_enough(major: i32, wal_level: Option<String>) -> bool {
    let levels: &[&str] = if major >= 19 { &["logical", "replica"] } else { &["logical"] };
    wal_level.is_some_and(|level| levels.contains(&&*level))
}

/// The publication that is made for these tables: its name, whether it is there with all of them (one may
/// have been dropped and made anew), the command that makes it so, the first table whose writers it would
/// break, and whether the slot is there.
pub(super) fn publication_of_tables(tables: &[String], via_root: bool, slot: &str) -> String {
    format!(
        "WITH RECURSIVE named AS (\
           SELECT DISTINCT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name \
           FROM pg_catalog.unnest({tables}) AS t (given) \
           JOIN pg_catalog.pg_class AS c ON c.oid = t.given::pg_catalog.regclass \
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace), \
         family AS (\
           SELECT oid FROM named UNION \
           SELECT i.inhrelid FROM family AS f JOIN pg_catalog.pg_inherits AS i ON i.inhparent = f.oid), \
         publication AS (\
           SELECT 'pgwake_' || pg_catalog.md5(\
                    pg_catalog.string_agg(name, ',' ORDER BY name) || '{via_root}') \
                    AS name, \
                  pg_catalog.string_agg(name, ', ' ORDER BY name) AS tables, \
                  pg_catalog.array_agg(oid) AS oids FROM named) \
         SELECT p.name, \
                e.oid IS NOT NULL AND p.oids <@ ARRAY(\
                  SELECT r.prrelid FROM pg_catalog.pg_publication_rel AS r WHERE r.prpubid = e.oid), \
                pg_catalog.format(CASE WHEN e.oid IS NOT NULL THEN 'ALTER PUBLICATION %I SET TABLE %s' \
                                  ELSE 'CREATE PUBLICATION %I FOR TABLE %s \
                                        WITH (publish_via_partition_root = {via_root})' END, \
                                  p.name, p.tables), \
                (SELECT pg_catalog.min(c.oid::pg_catalog.regclass::text) FROM family AS f \
                 JOIN pg_catalog.pg_class AS c ON c.oid = f.oid AND c.relkind = 'r' \
                 WHERE c.relreplident = 'n' OR c.relreplident <> 'f' AND NOT EXISTS (\
                   SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisvalid \
                   AND CASE c.relreplident WHEN 'i' THEN i.indisreplident \
                            ELSE i.indisprimary AND i.indimmediate END)), \
                EXISTS (\
                  SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot} \
                  AND NOT temporary AND database = pg_catalog.current_database()) \
         FROM publication AS p LEFT JOIN pg_catalog.pg_publication AS e ON e.pubname = p.name",
        tables = array(tables),
        slot = quoted(slot),
    )
}

/// Of messages alone. One without tables brings nothing else, and messages come with any.
pub(super) const PUBLICATION_OF_MESSAGES: &str = "pgwake_messages";

/// The first of these publications that is not there. A server up to 17 says so only in the middle. From here
/// on, no name is looked up by the role's search path.
pub(super) fn missing_publications(publications: &[String]) -> String {
    format!(
        "SET search_path TO ''; SELECT name FROM pg_catalog.unnest({}) AS p (name) WHERE NOT EXISTS (\
         SELECT FROM pg_catalog.pg_publication AS e WHERE e.pubname = p.name) ORDER BY name LIMIT 1",
        array(publications)
    )
}

/// The columns of the primary keys of published tables with REPLICA IDENTITY FULL.
pub(super) fn keys(publications: &[String]) -> String {
    format!(
        "SELECT c.oid, a.attname FROM pg_catalog.pg_publication_tables AS p \
         JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname \
         JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename \
         JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisprimary \
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) \
         WHERE c.relreplident = 'f' AND p.pubname = ANY ({}) GROUP BY 1, 2",
        array(publications)
    )
}

/// The slot, if it is there.
pub(super) fn slot(name: &str) -> String {
    format!(
        "SELECT slot_name, plugin, database = pg_catalog.current_database(), active_pid, wal_status, \
                temporary, pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4 \
                  - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots), confirmed_flush_lsn \
         FROM (VALUES (1)) AS one LEFT JOIN pg_catalog.pg_replication_slots ON slot_name = {}",
        quoted(name)
    )
}

/// What stands before and behind the plugin's name in CREATE_REPLICATION_SLOT.
pub(super) fn slot_options(
    major: i32,
    is_temporary: bool,
    with_snapshot: bool,
    options: &StreamOptions,
) -> [String; 2] {
    let temporary = if is_temporary { " TEMPORARY" } else { "" }.to_string();
    if major < 15 {
        return [temporary, if with_snapshot { "USE_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" }.into()];
    }
    let mut list = format!("(SNAPSHOT '{}'", if with_snapshot { "use" } else { "nothing" });
    if options.two_phase {
        list.push_str(", TWO_PHASE true");
    }
    if options.failover && major >= 17 && !is_temporary {
        list.push_str(", FAILOVER true");
    }
    list.push(')');
    [temporary, list]
}

/// Standbys keep the slot, too, from now on.
pub(super) fn set_failover(name: &str) -> String {
    format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", identifier(name))
}

/// What the plugin is asked for (manual, "Logical Streaming Replication Parameters").
pub(super) fn start_options(major: i32, publications: &[String], options: &StreamOptions) -> String {
    // 2 has transactions in progress, 3 prepared ones, 4 came with 16.
    let version = (major - 12).clamp(2, 4);
    let names: Vec<_> = publications.iter().map(|name| identifier(name)).collect();
    let mut list = format!("proto_version '{version}', publication_names {}", quoted(&names.join(",")));
    let mut add = |is_wanted: bool, option: &str| {
        if is_wanted {
            let _ = write!(list, ", {option}");
        }
    };
    add(options.messages, "messages 'true'");
    add(options.binary, "binary 'true'");
    add(options.streaming != Streaming::Off, "streaming 'on'");
    add(options.two_phase, "two_phase 'on'");
    add(options.origin == Origin::None, "origin 'none'");
    list
}

/// Keeps these tables, names as SQL has them, from being truncated or rewritten: a snapshot that is older
/// would find them empty (manual, "Caveats" of concurrency control).
pub(super) fn lock(tables: &[String]) -> String {
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "))
}

/// The columns of published tables, for a snapshot of them: in their order, a row for each. The type comes as
/// the log names it, which is that below a domain.
pub(super) fn snapshot_tables(publications: &[String], major: i32) -> String {
    // Column lists and row filters came with 15; before that generated columns are all that is left out.
    let (filter, is_published) = match major {
        15.. => ("p.rowfilter", "a.attname = ANY (p.attnames)"),
        _ => ("NULL::text", "a.attgenerated = ''"),
    };
    format!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind = 'p', c.relreplident, a.attname, a.atttypid, \
                a.atttypmod, \
                EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid \
                        AND a.attnum = ANY (i.indkey) AND CASE c.relreplident WHEN 'i' THEN i.indisreplident \
                        WHEN 'n' THEN false ELSE i.indisprimary END), \
                pg_catalog.bool_or({filter} IS NULL), \
                pg_catalog.string_agg(DISTINCT {filter}, ' OR '), b.nspname, b.typname \
         FROM pg_catalog.pg_publication_tables AS p \
         JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname \
         JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename \
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
              AND {is_published} \
         JOIN LATERAL (\
           WITH RECURSIVE below (oid) AS (\
             SELECT a.atttypid UNION ALL SELECT d.typbasetype FROM below \
             JOIN pg_catalog.pg_type AS d ON d.oid = below.oid AND d.typtype = 'd') \
           SELECT tn.nspname, t.typname FROM below \
           JOIN pg_catalog.pg_type AS t ON t.oid = below.oid AND t.typtype <> 'd' \
           JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace) AS b ON true \
         WHERE p.pubname = ANY ({}) \
         GROUP BY c.oid, n.nspname, c.relname, c.relkind, c.relreplident, a.attname, a.atttypid, \
                  a.atttypmod, a.attnum, b.nspname, b.typname \
         ORDER BY n.nspname, c.relname, a.attnum",
        array(publications)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_does_not_know_is_not_asked_of_it() {
        assert!(
            !settings(16, false).contains("transaction_timeout TO")
                || settings(16, false).contains("idle_in_transaction")
        );
        assert!(settings(14, false).contains("SET wal_sender_timeout TO '24d'"), "with 0 a server is slower");
        assert!(!settings(18, false).contains("wal_sender_shutdown_timeout"));
        assert!(settings(19, false).contains("SET wal_sender_shutdown_timeout TO '5s'"));
        assert!(settings(18, false).contains("current_setting('wal_level')"));
        assert!(settings(19, false).contains("current_setting('effective_wal_level')"));
        let options = StreamOptions::new().two_phase(true).failover(true);
        let of = |major| slot_options(major, false, false, &options)[1].clone();
        assert_eq!(of(14), "NOEXPORT_SNAPSHOT");
        assert_eq!(of(16), "(SNAPSHOT 'nothing', TWO_PHASE true)");
        assert_eq!(of(17), "(SNAPSHOT 'nothing', TWO_PHASE true, FAILOVER true)");
    }

    #[test]
    fn names_are_quoted_once_as_identifiers_and_once_as_a_literal() {
        let options = start_options(18, &["a'b\"c".into(), "d".into()], &StreamOptions::new());
        assert_eq!(options, "proto_version '4', publication_names '\"a''b\"\"c\",\"d\"'");
    }
}
