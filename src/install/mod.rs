//! The SQL that goes into the server, as text: the scripts that install and uninstall the schema `pgwake`.

/// The version of the schema that these scripts make; `pgwake.version()` gives the one that is installed.
pub const VERSION: u32 = 6;

/// What is installed, in this order. Each can run again over itself.
const SCRIPTS: [&str; 18] = [
    include_str!("sql/01_schema.sql"),
    include_str!("sql/02_convert.sql"),
    include_str!("sql/03_generate.sql"),
    include_str!("sql/04_deliver.sql"),
    include_str!("sql/05_watch.sql"),
    include_str!("sql/06_read.sql"),
    include_str!("sql/07_installation.sql"),
    include_str!("sql/08_rotate.sql"),
    include_str!("sql/09_mode.sql"),
    include_str!("sql/09_running.sql"),
    include_str!("sql/10_ddl.sql"),
    include_str!("sql/11_check.sql"),
    include_str!("sql/12_targets.sql"),
    include_str!("sql/13_before_drop.sql"),
    include_str!("sql/20_runs.sql"),
    include_str!("sql/21_poll.sql"),
    include_str!("sql/30_messages.sql"),
    include_str!("sql/99_rights.sql"),
];

/// Independent of the session's settings, and one installer at a time. ASCII alone, for any encoding. A lock
/// on a table is not waited for long, because writers queue behind who waits for one: run it again then. But
/// longer than `deadlock_timeout`, after which the server ends an autovacuum that is in the way.
const OPENING: &str = "BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL standard_conforming_strings = on;
SET LOCAL pgwake.following = on;
SELECT pg_catalog.pg_advisory_xact_lock(1885828971, 0);
SET LOCAL lock_timeout = '1200ms';
";

/// One transaction that installs the schema, or makes its functions anew and keeps what it holds.
pub fn install() -> String {
    in_one_transaction(&SCRIPTS)
}

/// One transaction that takes the schema out again, with every trigger that it put on.
pub fn uninstall() -> String {
    in_one_transaction(&[include_str!("sql/uninstall.sql")])
}

fn in_one_transaction(scripts: &[&str]) -> String {
    format!("{OPENING}\n{}\nCOMMIT;\n", scripts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_opens_with_its_purpose_and_fits_any_encoding() {
        for script in SCRIPTS.iter().chain([&include_str!("sql/uninstall.sql")]) {
            assert!(script.starts_with("-- "), "{script:.60}");
            assert!(script.is_ascii(), "{script:.60}");
            // A writer, or an installer, may have standard_conforming_strings off.
            assert!(!script.contains('\\'), "{script:.60}");
            assert!(script.lines().count() <= 500, "{script:.60}");
            let long = script.lines().find(|line| line.len() > 110);
            assert_eq!(long, None, "{script:.60}");
        }
    }

    #[test]
    fn the_version_is_the_same_everywhere() {
        let schema = SCRIPTS[0];
        assert!(schema.contains(&format!("COMMENT ON SCHEMA pgwake IS 'pgwake, version {VERSION}'")));
        assert!(schema.contains(&format!("AS 'SELECT {VERSION}'")));
    }
}
