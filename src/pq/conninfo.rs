//! What to connect to: a connection string as keywords and values, parsed by libpq itself, shown without its
//! secrets.
#![allow(unsafe_code)]

use super::text::text;
use crate::error::{Error, ErrorKind, Result};
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::time::Duration;

/// The usual directories of a server's socket: Debian's, and PostgreSQL's own. Which of them a libpq tries by
/// itself depends on who built it, so both are tried where nothing names a host.
const SOCKET_DIRECTORIES: &str = "/var/run/postgresql,/tmp";

/// No setting takes this value.
const SPOILT: &str = "pgwake-impossible";

/// Keywords and values, as `PQconnectStartParams` takes them (manual, "Connection Strings").
#[derive(Clone)]
pub struct Conninfo {
    options: Vec<(CString, CString)>,
    secret: Vec<bool>,
}

impl Conninfo {
    /// Parses `key=value` pairs or a URI. Environment, service file and `~/.pgpass` fill in the rest when
    /// connecting.
    pub fn parse(conninfo: &str) -> Result<Self> {
        let source = CString::new(conninfo)
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "the connection string holds a NUL byte"))?;
        let mut problem: *mut c_char = std::ptr::null_mut();
        // SAFETY: `source` is a C string; libpq answers with an array of its own, or NULL and a message.
        let array = unsafe { pq_sys::PQconninfoParse(source.as_ptr(), &mut problem) };
        if array.is_null() {
            // SAFETY: the message, if any, is a C string that must be freed by libpq, once.
            let message = unsafe {
                let message = text(problem);
                pq_sys::PQfreemem(problem.cast());
                message
            };
            return Err(malformed(&message));
        }
        // SAFETY: the array is libpq's, complete, and freed once.
        let mut parsed = unsafe {
            let parsed = Conninfo::from_array(array);
            pq_sys::PQconninfoFree(array);
            parsed
        };
        if ["postgresql://", "postgres://"].iter().any(|scheme| conninfo.starts_with(scheme)) {
            parsed.refuse_strays()?;
        }
        parsed.default_host();
        parsed.set_default("fallback_application_name", "pgwake");
        Ok(parsed)
    }

    /// # Safety
    ///
    /// `option` points to an array of libpq's that ends with a NULL keyword.
    unsafe fn from_array(mut option: *const pq_sys::PQconninfoOption) -> Self {
        let mut parsed = Conninfo { options: Vec::new(), secret: Vec::new() };
        // SAFETY: within the array, up to its end; keywords and values are C strings or NULL.
        unsafe {
            while !(*option).keyword.is_null() {
                if !(*option).val.is_null() {
                    let keyword = CStr::from_ptr((*option).keyword).to_owned();
                    let value = CStr::from_ptr((*option).val).to_owned();
                    parsed.options.push((keyword, value));
                    // libpq marks what a dialog must hide with "*".
                    parsed.secret.push(super::text::bytes((*option).dispchar) == b"*");
                }
                option = option.add(1);
            }
        }
        parsed
    }

    /// A password with a bare slash or `@` ends up in the host's name and in the port, where libpq takes it
    /// for now and refuses it when connecting, in words that show it.
    fn refuse_strays(&self) -> Result<()> {
        let list = |keyword| self.get(keyword).unwrap_or_default().split(',');
        let is_host = |host: &str| !host.contains('@') || host.starts_with(['/', '@']);
        if list("port").all(is_port) && list("host").all(is_host) {
            return Ok(());
        }
        let has_stray = ["host", "dbname"].iter().any(|part| list(part).any(|part| part.contains('@')));
        Err(malformed(match has_stray {
            true => "a special character of the password is not written as %XX",
            false => "the port is not a number from 1 to 65535",
        }))
    }

    /// A service need not name a host, nor need `PGHOST` hold one: what counts is what libpq ends up with.
    fn default_host(&mut self) {
        let complete = self.with_defaults();
        let is_named = |keyword| complete.get(keyword).is_some_and(|value| !value.is_empty());
        if !is_named("host") && !is_named("hostaddr") {
            self.set("host", SOCKET_DIRECTORIES);
        }
    }

    /// The value of a keyword, if the connection string has it.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        let (_, value) = self.options.iter().find(|(key, _)| key.as_bytes() == keyword.as_bytes())?;
        value.to_str().ok()
    }

    /// The same with all that the environment, the service file and libpq itself add; to be read, not to
    /// connect with (`channel_binding` and the password are spoilt).
    pub fn with_defaults(&self) -> Self {
        self.spoilt("channel_binding").0
    }

    /// How long a host may be silent, where that is set and not for ever. libpq counts only in its blocking
    /// calls, which are not used here.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        let seconds = self.get("connect_timeout")?.trim().parse().ok().filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds))
    }

    /// Whether libpq takes the settings, those of the environment and of the service file among them. It
    /// says so only on its way to a connection; this is no further on it than that.
    pub fn check(&self) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        let refused = |message: String| invalid(&message.lines().collect::<Vec<_>>().join(" "));
        let (complete, message) = self.spoilt("channel_binding");
        if !message.contains(SPOILT) {
            return refused(message);
        }
        if !complete.get("port").unwrap_or_default().split(',').all(is_port) {
            return invalid("the port is not a number from 1 to 65535 (port, PGPORT)");
        }
        // That is looked at last, just before a host's name would be looked up (`PQconnectPoll`,
        // fe-connect.c).
        let (_, message) = self.spoilt("port");
        if !message.contains(SPOILT) {
            return refused(message);
        }
        // libpq itself reads this one only where it waits.
        match complete.get("connect_timeout").unwrap_or_default().trim() {
            "" => Ok(()),
            seconds if seconds.parse::<i32>().is_ok() => Ok(()),
            _ => invalid("connect_timeout is not a whole number of seconds"),
        }
    }

    /// libpq adds defaults only on its way to a connection: an impossible setting stops it there. What it has
    /// by then, and what it says.
    fn spoilt(&self, keyword: &str) -> (Self, String) {
        let mut spoilt = self.clone();
        spoilt.set(keyword, SPOILT);
        // With a password at hand, the file of passwords is not read.
        spoilt.set_default("password", SPOILT);
        let (keywords, values) = spoilt.as_arrays();
        // SAFETY: two arrays of C strings of the same length that end with NULL and outlive the call; the
        // connection and the array it gives are libpq's and freed once.
        unsafe {
            let raw = pq_sys::PQconnectStartParams(keywords.as_ptr(), values.as_ptr(), 0);
            let array = pq_sys::PQconninfo(raw);
            let complete = if array.is_null() { self.clone() } else { Conninfo::from_array(array) };
            let message = text(pq_sys::PQerrorMessage(raw));
            pq_sys::PQconninfoFree(array);
            pq_sys::PQfinish(raw);
            (complete, message)
        }
    }

    /// Whether the libpq in use knows a keyword.
    pub fn is_known(keyword: &str) -> bool {
        // SAFETY: the array is libpq's and freed once; keywords are C strings, and the last is NULL.
        unsafe {
            let array = pq_sys::PQconndefaults();
            let mut option = array;
            let mut is_known = false;
            while !option.is_null() && !(*option).keyword.is_null() {
                is_known |= super::text::bytes((*option).keyword) == keyword.as_bytes();
                option = option.add(1);
            }
            pq_sys::PQconninfoFree(array);
            is_known
        }
    }

    /// Sets a keyword. Neither text holds a NUL byte.
    pub fn set(&mut self, keyword: &str, value: &str) {
        let place = self.options.iter().position(|(key, _)| key.as_bytes() == keyword.as_bytes());
        match (place, CString::new(value)) {
            (Some(place), Ok(value)) => self.options[place].1 = value,
            _ => self.set_default(keyword, value),
        }
    }

    /// Adds a keyword unless the connection string has it already. Neither text holds a NUL byte.
    pub fn set_default(&mut self, keyword: &str, value: &str) {
        if self.get(keyword).is_some() {
            return;
        }
        if let (Ok(keyword), Ok(value)) = (CString::new(keyword), CString::new(value)) {
            self.options.push((keyword, value));
            self.secret.push(false);
        }
    }

    /// All of it as one connection string of keywords, secrets included: for another program. An error if it
    /// is not UTF-8.
    pub fn unredacted(&self) -> Result<String> {
        let text = |text: &CStr| {
            let text = text.to_str().map(|text| text.replace('\\', "\\\\").replace('\'', "\\'"));
            text.map_err(|_| Error::new(ErrorKind::InvalidArgument, "the conninfo is not UTF-8"))
        };
        let pair = |(keyword, value): &(CString, CString)| {
            Ok(format!("{}='{}'", keyword.to_string_lossy(), text(value)?))
        };
        Ok(self.options.iter().map(pair).collect::<Result<Vec<_>>>()?.join(" "))
    }

    /// Two arrays of the same length that end with NULL, for `PQconnectStartParams`. They borrow from `self`.
    pub(super) fn as_arrays(&self) -> (Vec<*const c_char>, Vec<*const c_char>) {
        let end = [std::ptr::null()];
        let keywords = self.options.iter().map(|(keyword, _)| keyword.as_ptr()).chain(end).collect();
        let values = self.options.iter().map(|(_, value)| value.as_ptr()).chain(end).collect();
        (keywords, values)
    }
}

/// Keywords and values with every secret hidden, fit for a log.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for ((keyword, value), secret) in self.options.iter().zip(&self.secret) {
            let (keyword, value) = (keyword.to_string_lossy(), value.to_string_lossy());
            write!(f, "{space}{keyword}={}", if *secret { "***".into() } else { value })?;
            space = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conninfo({self})")
    }
}

/// Whether libpq takes it for a port, or for the default one.
fn is_port(port: &str) -> bool {
    let port = port.trim();
    port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// libpq quotes the part that it could not read, and that may be a password: only its words before that are
/// shown.
fn malformed(message: &str) -> Error {
    let words =
        message.split(|c: char| !c.is_ascii() || "\"\'`".contains(c)).next().unwrap_or_default().trim();
    let advice =
        "write it as \"host=… dbname=…\" or \"postgresql://user@host/dbname\", special characters quoted";
    let message = format!("the connection string is malformed ({words} …); {advice}");
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_and_uris_are_parsed() {
        for source in ["host=db port=5433 dbname=app", "postgresql://db:5433/app"] {
            let conninfo = Conninfo::parse(source).unwrap();
            assert_eq!(conninfo.get("host"), Some("db"));
            assert_eq!(conninfo.get("port"), Some("5433"));
            assert_eq!(conninfo.get("dbname"), Some("app"));
            assert_eq!(conninfo.get("user"), None);
        }
    }

    #[test]
    fn what_libpq_takes_is_taken() {
        let parts = |uri: &str| {
            let conninfo = Conninfo::parse(uri).unwrap();
            ["user", "password", "host", "port", "dbname"].map(|part| conninfo.get(part).map(String::from))
        };
        let is = |uri: &str, expected: [&str; 5]| {
            assert_eq!(parts(uri).map(Option::unwrap_or_default), expected, "{uri}");
        };
        is("postgresql://u@db/a%40b", ["u", "", "db", "", "a@b"]);
        is("postgres://%40u:p%40%2Fw@db:5433/a", ["@u", "p@/w", "db", "5433", "a"]);
        is("postgresql:///a@b", ["", "", SOCKET_DIRECTORIES, "", "a@b"]);
        is("postgresql:///a?host=%40name&port=1", ["", "", "@name", "1", "a"]);
        is("postgresql://%40name/a", ["", "", "@name", "", "a"]);
        is("postgresql://%2Ftmp%2Fx%40y,h:2/a", ["", "", "/tmp/x@y,h", ",2", "a"]);
        is("postgresql://[::1]:5,[fe80::1%25lo]/a", ["", "", "::1,fe80::1%lo", "5,", "a"]);
        is("host=@name dbname=a@b user=x@y", ["x@y", "", "@name", "", "a@b"]);
        is("dbname=postgres://x:y@z", ["", "", SOCKET_DIRECTORIES, "", "postgres://x:y@z"]);
    }

    #[test]
    fn what_is_written_out_is_read_the_same() {
        for source in ["", "host=x password=", "host='/a b\\'c\\\\'", "postgresql://u:a%3Fb'@x:1/d%20e"] {
            let mut conninfo = Conninfo::parse(source).unwrap();
            conninfo.set("port", "7");
            let read = Conninfo::parse(&conninfo.unredacted().unwrap()).unwrap();
            assert!(conninfo.options.iter().all(|option| read.options.contains(option)), "{source}");
            assert_eq!(read.options.len(), conninfo.options.len(), "{source}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_no_password() {
        let error = Conninfo::parse("postgresql://localhost:54x/app").unwrap_err();
        assert!(error.message.contains("port is not a number"), "{error}");
        assert!(!error.message.contains("password"), "{error}");
    }

    #[test]
    fn settings_that_libpq_refuses_are_found_before_anything_is_connected() {
        let check = |source: &str| Conninfo::parse(source).unwrap().check();
        check("host=db sslmode=verify-full target_session_attrs=any password=x").unwrap();
        for (wrong, word) in [
            ("sslmode=wrong", "sslmode"),
            ("channel_binding=wrong", "channel_binding"),
            ("target_session_attrs=wrong", "target_session_attrs"),
            ("service=no-such-service", "no-such-service"),
            ("host=a,b,c port=1,2", "port"),
            ("port=54x", "port"),
            ("port=65536", "port"),
            ("host=a,b port=1,0", "port"),
            ("connect_timeout=soon", "connect_timeout"),
            ("ssl_min_protocol_version=wrong", "ssl_min_protocol_version"),
        ] {
            let error = check(wrong).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{wrong}");
            assert!(error.message.contains(word), "{wrong}: {error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let conninfo = Conninfo::parse("host=db password=hunter2 sslpassword=hunter3").unwrap();
        for shown in [conninfo.to_string(), format!("{conninfo:?}")] {
            assert!(shown.contains("host=db") && shown.contains("password=***"), "{shown}");
            assert!(!shown.contains("hunter"), "{shown}");
        }
        for malformed in [
            "password=hunter2 hunter3",
            "postgresql://u:hunter2@[db/app",
            "postgresql://u@db/app?hunter2=1",
            "password='hunter2",
            "hunter2",
            "password=correct horse\"hunter2",
            "postgresql://u:a\"[hunter2@[h/db",
            "postgresql://u:x/hunter2@db/app",
            "postgresql://u:x/hunter2@db:5432/app",
        ] {
            let error = Conninfo::parse(malformed).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(!error.message.contains("hunter"), "{malformed}: {error}");
        }
    }
}
