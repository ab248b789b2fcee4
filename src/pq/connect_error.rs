//! Why a connection could not be made. libpq has that as a text alone: in go its lines, out come one sentence
//! and a code.

use crate::error::SqlState;

/// The code for a connect that failed before the server could give one. A certificate that is not accepted
/// stays so until somebody changes something (`fe-secure-openssl.c`, and OpenSSL's own words, which are never
/// translated); a file that cannot be read may be on its way.
pub(super) fn connect_sqlstate(message: &str) -> SqlState {
    // Each address that was tried has its line: all of them must say so.
    let mut lines = message.lines().filter(|line| !line.trim().is_empty()).peekable();
    let is_about_certificates =
        lines.peek().is_some() && lines.all(|line| has_word(line, "certificate") && !has_word(line, "file"));
    match is_about_certificates {
        true => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        false => SqlState::CONNECTION_NOT_MADE,
    }
}

/// What is quoted is a name, which may hold any word, and does not count.
#[inline(never)]
fn has_word(line: &str, word: &str) -> bool {
    line.split('"').step_by(2).any(|part| part.split_ascii_whitespace().any(|w| w == word))
}

/// libpq's text about a failed connect, as one line and a SQLSTATE. With verbose errors the text reads
/// `FATAL:  28P01: password authentication failed …`, and a line that ends in a source file's name follows.
/// Each attempt has a line of its own, and more about it follows behind a tab.
pub(super) fn read_connect_error(text: &str) -> (String, Option<SqlState>) {
    let (mut sqlstate, mut first_said) = (None, 0);
    let mut sentences: Vec<String> = Vec::new();
    for line in text.lines() {
        let (line, is_more) = (line.trim(), line.starts_with('\t'));
        let is_location = line.rsplit_once(".c:").is_some_and(|(_, n)| n.parse::<u32>().is_ok());
        if line.is_empty() || is_location {
            continue;
        }
        let found = line.split_once(":  ").and_then(|(before, rest)| {
            let message = rest.get(5..)?.strip_prefix(": ")?;
            Some((before, SqlState::new(rest.get(..5)?)?, message))
        });
        if found.is_some() && sqlstate.is_none() {
            first_said = sentences.len();
        }
        sqlstate = found.map(|(_, code, _)| code).or(sqlstate);
        let sentence = found.map_or(line.into(), |(before, _, message)| format!("{before}: {message}"));
        if let Some(last) = sentences.last_mut().filter(|_| is_more) {
            last.extend([". ", &sentence]);
        } else if !sentences.contains(&sentence) {
            // Without TLS a server says the same again.
            sentences.push(sentence);
        }
    }
    // Who says that it will never have us has the last word, whatever became of others before.
    let first = if sqlstate.is_some_and(|s| s.is_permanent()) { first_said } else { 0 };
    (sentences[first.min(sentences.len())..].join("; "), sqlstate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_error_has_its_sqlstate_whatever_the_language() {
        let text = "connection to server at \"::1\", port 5432 failed: FATAL:  28P01: \
                    Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen\n\
                    ORT:  auth_failed, auth.c:333\n";
        let (message, sqlstate) = read_connect_error(text);
        assert_eq!(sqlstate, SqlState::new("28P01"));
        assert_eq!(
            message,
            "connection to server at \"::1\", port 5432 failed: FATAL: Passwort-Authentifizierung für \
             Benutzer »u« fehlgeschlagen"
        );
    }

    #[test]
    fn a_server_that_will_not_have_us_has_the_last_word() {
        let nothing = "connection to server on socket \"/a/.s.PGSQL.1\" failed: No such file or directory\n\
                       \tIs the server running locally and accepting connections on that socket?\n";
        let said = |code: &str, words: &str| {
            format!(
                "connection to server on socket \"/b/.s.PGSQL.1\" failed: FATAL:  {code}: {words}\n\
                     LOCATION:  ProcessStartup, postmaster.c:1\n"
            )
        };
        let role = said("28000", "role \"u\" does not exist");
        let (message, sqlstate) = read_connect_error(&format!("{nothing}{role}{role}"));
        assert_eq!(sqlstate, SqlState::new("28000"));
        let expected =
            "connection to server on socket \"/b/.s.PGSQL.1\" failed: FATAL: role \"u\" does not exist";
        assert_eq!(message, expected);
        let starting = said("57P03", "the database system is starting up");
        let (message, sqlstate) = read_connect_error(&format!("{nothing}{starting}"));
        assert_eq!(sqlstate, SqlState::new("57P03"));
        assert!(message.contains("on that socket?; connection to server on"), "{message}");
    }

    #[test]
    fn a_certificate_that_is_not_accepted_has_a_code_of_its_own() {
        for text in [
            "connection to server at \"db\", port 1 failed: SSL error: certificate verify failed\n",
            "server certificate for \"a\" does not match host name \"b\"\n",
        ] {
            assert_eq!(connect_sqlstate(text), SqlState::INVALID_AUTHORIZATION_SPECIFICATION, "{text}");
        }
        let refused = "connection to server at \"my certificate host\", port 1 failed: Connection refused\n";
        let one_of_two = format!(
            "connection to server at \"a\", port 1 failed: SSL error: certificate verify failed\n{refused}"
        );
        let unreadable = "could not open certificate file \"/x\": Permission denied\n";
        for text in [refused, &one_of_two, unreadable, ""] {
            assert_eq!(connect_sqlstate(text), SqlState::CONNECTION_NOT_MADE, "{text}");
        }
    }

    #[test]
    fn a_connect_error_of_libpq_itself_is_one_line() {
        let text = "connection to server on socket \"/x/.s.PGSQL.5432\" failed: No such file or directory\n\
                    \tIs the server running locally and accepting connections on that socket?\n";
        let (message, sqlstate) = read_connect_error(text);
        assert_eq!(sqlstate, None);
        assert!(
            message.ends_with(
                "directory. Is the server running locally and accepting connections on that socket?"
            )
        );
    }
}
