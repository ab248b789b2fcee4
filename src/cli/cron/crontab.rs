//! A file of schedules, as crontab(5) has them: an expression a line, and the command to run behind it.
//!
//! `CRON_TZ=Europe/Berlin` on a line of its own holds for the lines below it; before an expression, for that
//! one. A sixth word that can be a field is one: the first is the second then.

use std::fmt::Display;

/// One schedule: what was typed, or stands in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it stands, for those who have to mend it; empty for the command line.
    pub(super) place: String,
    pub(super) expression: String,
    pub(super) time_zone: Option<String>,
    /// Empty: what the command line says.
    pub(super) command: Vec<String>,
}

impl Entry {
    /// What tells it from others: machines that have the same file have the same schedules.
    pub(super) fn title(&self) -> String {
        let command = self.command.iter().map(|word| format!(" {word}")).collect::<String>();
        let zone = self.time_zone.iter().map(|zone| format!("CRON_TZ={zone} ")).collect::<String>();
        format!("{zone}{}{command}", self.expression)
    }

    /// What is wrong with it, and where it stands.
    pub(super) fn fault(&self, sentence: impl Display) -> String {
        match &*self.place {
            "" => sentence.to_string(),
            place => format!("{place}: {sentence}"),
        }
    }
}

/// The schedules of a file, and what is wrong with lines that are none.
pub(super) fn read(name: &str, text: &str, time_zone: Option<&str>) -> (Vec<Entry>, Vec<String>) {
    let mut time_zone = time_zone.map(String::from);
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name}:{}", number + 1);
        let (zone, rest) = match line.strip_prefix("CRON_TZ=") {
            None => (time_zone.clone(), line),
            Some(given) => {
                let (zone, rest) = given.split_once(char::is_whitespace).unwrap_or((given, ""));
                (Some(zone.trim_matches(['"', '\'']).to_string()), rest.trim_start())
            }
        };
        if rest.is_empty() {
            time_zone = zone;
            continue;
        }
        let (expression, command) = split(rest);
        match shlex::split(command) {
            Some(command) => entries.push(Entry { place, expression, time_zone: zone, command }),
            None => faults.push(format!("{place}: the command has a quotation mark without its counterpart")),
        }
    }
    (entries, faults)
}

/// An expression, and what stands behind it.
fn split(line: &str) -> (String, &str) {
    let fields = match line.split_whitespace().next() {
        Some("@every") => 2,
        Some(first) if first.starts_with('@') => 1,
        _ => match line.split_whitespace().nth(5) {
            Some(word) if is_field(word) => 6,
            _ => 5,
        },
    };
    let mut rest = line;
    for _ in 0..fields {
        rest = rest.trim_start();
        rest = &rest[rest.find(char::is_whitespace).unwrap_or(rest.len())..];
    }
    let expression = line[..line.len() - rest.len()].split_whitespace().collect::<Vec<_>>().join(" ");
    (expression, rest.trim())
}

/// Whether a word can be a day of the week, or `+` and one.
fn is_field(word: &str) -> bool {
    let names = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let word = word.strip_prefix('+').unwrap_or(word);
    word.split([',', '-', '/', '#']).all(|part| {
        let part = part.trim_end_matches(['L', 'l']);
        let is_name = names.iter().any(|name| part.eq_ignore_ascii_case(name));
        is_name || part == "*" || part == "?" || part.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(place: &str, expression: &str, zone: Option<&str>, command: &[&str]) -> Entry {
        Entry {
            place: place.into(),
            expression: expression.into(),
            time_zone: zone.map(String::from),
            command: command.iter().map(|word| word.to_string()).collect(),
        }
    }

    #[test]
    fn each_line_is_a_schedule_with_its_zone_and_its_command() {
        let text = "# nightly\n\n30 2 * * *  pg_dump  'my db'\n*/10 * * * * * tick\n\
            CRON_TZ=Asia/Kolkata\n 0 9 * * mon-fri greet -n\nCRON_TZ=\"UTC\" @daily tidy\n@every 90s\n\
            0 0 * * 5L\n0 0 1 * * 'it\n0 0 1 1 * 7z a\n0 5 2 1 * +mon,Fri sh -c \"echo hi\"\n\
            0 0 1 * +mon +x\n";
        let (entries, faults) = read("tab", text, Some("Europe/Berlin"));
        let (berlin, kolkata) = (Some("Europe/Berlin"), Some("Asia/Kolkata"));
        assert_eq!(
            entries,
            [
                entry("tab:3", "30 2 * * *", berlin, &["pg_dump", "my db"]),
                entry("tab:4", "*/10 * * * * *", berlin, &["tick"]),
                entry("tab:6", "0 9 * * mon-fri", kolkata, &["greet", "-n"]),
                entry("tab:7", "@daily", Some("UTC"), &["tidy"]),
                entry("tab:8", "@every 90s", kolkata, &[]),
                entry("tab:9", "0 0 * * 5L", kolkata, &[]),
                entry("tab:11", "0 0 1 1 *", kolkata, &["7z", "a"]),
                entry("tab:12", "0 5 2 1 * +mon,Fri", kolkata, &["sh", "-c", "echo hi"]),
                entry("tab:13", "0 0 1 * +mon", kolkata, &["+x"]),
            ]
        );
        assert_eq!(faults, ["tab:10: the command has a quotation mark without its counterpart"]);
    }
}
