//! Where SQL of the caller begins, as the server's scanner sees it (manual, "Lexical Structure"): by that a
//! command is known before it is sent, and refused if the session could not go on behind it.

use crate::error::{Error, ErrorKind, Result};

/// What would leave the session in a state that the next request does not expect.
const REFUSED: [&str; 4] = ["copy", "begin", "start", "listen"];

/// Refuses SQL that is nothing to be run again and again; `why` says who runs what.
pub(super) fn refuse(why: &str, sql: &str) -> Result<()> {
    let word = first_word(sql);
    let message = if first_statement(sql).is_empty() {
        format!("{why}, and there is nothing to run in this")
    } else if sql.contains('\0') {
        format!("{why}, and this holds a NUL byte: PostgreSQL has none in text")
    } else if REFUSED.iter().any(|refused| word.eq_ignore_ascii_case(refused)) {
        format!("{why}, and {} is none", word.to_uppercase())
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// SQL from its first statement on: without the blanks, comments and empty statements before it. Empty when
/// there is nothing to run.
fn first_statement(sql: &str) -> &str {
    let is_skipped = |c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' | ';');
    let mut rest = sql.trim_start_matches(is_skipped);
    loop {
        rest = if rest.starts_with("--") {
            rest.find(['\n', '\r']).map_or("", |end| &rest[end..])
        } else if rest.starts_with("/*") {
            behind_comment(rest)
        } else {
            return rest;
        };
        rest = rest.trim_start_matches(is_skipped);
    }
}

/// The first word of the first statement, as it is written; empty when that begins with something else.
fn first_word(sql: &str) -> &str {
    let statement = first_statement(sql);
    let end = statement.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(statement.len());
    &statement[..end]
}

/// What follows a comment that `text` begins with; nothing when it has no end. Such comments nest.
fn behind_comment(text: &str) -> &str {
    let (bytes, mut depth, mut at) = (text.as_bytes(), 0, 0);
    while let Some(two) = bytes.get(at..at + 2) {
        match two {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_comments_and_empty_statements_come_before_the_first() {
        for sql in [
            "begin; x",
            " \t\r\n\x0b\x0cbegin; x",
            ";; ;begin; x",
            "-- a\nbegin; x",
            "--\r;--\u{e9}/*\nbegin; x",
            "/**/begin; x",
            "/* a /* b */ \u{e9} -- */;/*/ c */begin; x",
        ] {
            assert_eq!((first_statement(sql), first_word(sql)), ("begin; x", "begin"), "{sql:?}");
        }
        for sql in ["", " ", ";", "--", "-- begin", "/*", "/* /* */ begin", "/*/", "; -- a\n/* b */ ;"] {
            assert_eq!((first_statement(sql), first_word(sql)), ("", ""), "{sql:?}");
        }
    }

    #[test]
    fn what_is_no_comment_is_left_alone() {
        for (sql, word) in [("(SELECT 1)", ""), ("- 1", ""), ("/ 1", ""), ("\u{a0}begin", ""), ("x1", "x")] {
            assert_eq!((first_statement(sql), first_word(sql)), (sql, word), "{sql:?}");
        }
    }
}
