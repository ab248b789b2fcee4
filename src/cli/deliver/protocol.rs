//! What a child says on its stdout: bytes flow in, answers flow out, a line each. It knows no child.

/// A line that gets longer is none of ours.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How much of a line that is no answer is shown.
const SHOWN_CHARS_MAX: usize = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It can be handed events.
    Ready,
    /// All up to this position is stored.
    Stored(String),
    /// From this position on again, a little later.
    Again(String, String),
    /// This one will never be stored: position and reason.
    Drop(String, String),
    /// Anything else; how it begins.
    Nonsense(String),
}

/// What has come of a line so far.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Takes what was read. A line without its end may be the beginning of a longer one, and is no answer.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Answer> {
        let mut answers = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(piece);
            if let Some(line) = self.0.strip_suffix(b"\n") {
                answers.push(answer(line));
                self.0.clear();
            } else if self.0.len() > LINE_BYTES_MAX {
                answers.push(nonsense(&self.0));
                self.0.clear();
            }
        }
        answers
    }
}

fn answer(line: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(line) else { return nonsense(line) };
    let text = text.strip_suffix('\r').unwrap_or(text);
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (position, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    match (word, position) {
        ("ready", "") => Answer::Ready,
        ("nak", position) if is_position(position) => Answer::Again(position.into(), reason.into()),
        ("drop", position) if is_position(position) => Answer::Drop(position.into(), reason.into()),
        (position, "") if is_position(position) && position == text => Answer::Stored(position.into()),
        _ => nonsense(line),
    }
}

/// Numbers, and what stands between those of a place in the log.
fn is_position(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'/')
}

fn nonsense(line: &[u8]) -> Answer {
    Answer::Nonsense(String::from_utf8_lossy(line).chars().take(SHOWN_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(position: &str) -> Answer {
        Answer::Stored(position.into())
    }

    #[test]
    fn an_answer_is_a_line_however_it_is_cut() {
        let said = b"ready\n0/16B3748/1\nnak 0/16B3748/2 the sink is away\ndrop 257 too  long\r\n256\n";
        let expected = [
            Answer::Ready,
            stored("0/16B3748/1"),
            Answer::Again("0/16B3748/2".into(), "the sink is away".into()),
            Answer::Drop("257".into(), "too  long".into()),
            stored("256"),
        ];
        for size in 1..said.len() {
            let mut lines = Lines::default();
            let answers: Vec<_> = said.chunks(size).flat_map(|chunk| lines.take(chunk)).collect();
            assert_eq!(answers, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_answer() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"0/16B3748/1\n0/16B3748/1"), [stored("0/16B3748/1")]);
        assert_eq!(lines.take(b"2\n"), [stored("0/16B3748/12")]);
    }

    #[test]
    fn anything_else_is_nonsense() {
        for line in [
            "",
            " ",
            "hello",
            "ready now",
            "Ready",
            "nak",
            "nak  reason",
            "drop x y",
            "1 2",
            "1 ",
            " 1",
            "0/1\t",
            "é",
        ] {
            let answers = Lines::default().take(format!("{line}\n").as_bytes());
            assert!(matches!(&answers[..], [Answer::Nonsense(_)]), "{line:?}: {answers:?}");
        }
        assert!(matches!(&Lines::default().take(b"\xff\n")[..], [Answer::Nonsense(_)]));
    }

    #[test]
    fn what_never_ends_a_line_takes_no_memory() {
        let mut lines = Lines::default();
        let said: usize = (0..100).map(|_| lines.take(&[b'1'; 8192]).len()).sum();
        assert!(said > 0 && lines.0.len() <= LINE_BYTES_MAX + 8192);
    }
}
