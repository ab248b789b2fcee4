//! Whether a server is the one that was read before, and its log still the one that was read: from what it
//! says of itself when a connection begins, and of its history when that has branched off.

use super::sql::Answered;
use crate::event::Lsn;

/// What IDENTIFY_SYSTEM tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    system: String,
    /// Another one with each promotion of a standby, and each recovery to a point in time.
    pub(super) timeline: String,
    /// One that is promoted goes on sending, so what was read may be of a later timeline.
    pub(super) is_standby: bool,
    /// How far its log is.
    lsn: Lsn,
}

impl Identity {
    pub(super) fn read(rows: &Answered) -> Self {
        let [system, timeline] = [0, 1].map(|column| rows.text(0, column).unwrap_or_default());
        let lsn = rows.text(0, 2).and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
        Identity { system, timeline, lsn, is_standby: false }
    }

    /// Why a server that was like that cannot be read on as one like this, if it cannot.
    pub(super) fn objection(&self, before: Option<&Identity>) -> Option<&'static str> {
        before.is_some_and(|before| before.system != self.system).then_some(
            "this is another server than the one that was read so far (its system identifier differs): its \
             log goes on elsewhere; begin anew with another slot, or connect to the right one",
        )
    }

    /// Why its log cannot be read on from this place, if it cannot.
    pub(super) fn objection_of_log(&self, reached: Lsn) -> Option<String> {
        (self.lsn < reached).then(|| match self.is_standby {
            // After a crash it takes connections from its last restartpoint on.
            true => format!(
                "this standby has yet to replay its log from {} to {reached}, up to which it was read",
                self.lsn
            ),
            false => went_back(self.lsn, reached),
        })
    }
}

/// The log has lost what was read of it.
fn went_back(lsn: Lsn, reached: Lsn) -> String {
    format!(
        "the server's log is at {lsn}, and was read up to {reached}: it was restored from a backup or failed \
         over to a standby that lagged; look at the tables afresh, then begin anew with another slot"
    )
}

/// Why the log of a server with this history cannot be read on from this place of an earlier timeline. Each
/// line of a history names a timeline and the place at which the next one began.
pub(super) fn objection_of_history(history: &str, timeline: &str, reached: Lsn) -> Option<String> {
    let mut lines = history.lines().map(|line| line.split('\t'));
    let left_at = lines.find_map(|mut line| (line.next()?.trim() == timeline).then(|| line.next()));
    let left_at: Lsn = left_at.flatten().and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
    (left_at < reached).then(|| went_back(left_at, reached))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_whether_what_was_read_is_part_of_it() {
        let history = "1\t0/3000110\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-30\n";
        let objects = |timeline, lsn| objection_of_history(history, timeline, Lsn(lsn)).is_some();
        assert!(!objects("1", 0x0300_0110) && objects("1", 0x0300_0111));
        assert!(!objects("2", 0x0500_0000) && objects("2", 0x0500_0001));
        assert!(objects("3", 1), "it is not one of its ancestors");
    }
}
