//! Where a position comes from: numbers of transactions mean something in one database, on one timeline, and
//! until some of them are lost in a crash.

/// A position as `pgwake.open_consumer` gives it, `before|upto|last|place`, without its place; and the place.
pub(super) fn split_place(opened: &str) -> (String, String) {
    let mut bars = opened.bytes().enumerate().filter(|(_, byte)| *byte == b'|');
    match bars.nth(2) {
        Some((third, _)) => (opened[..third].into(), opened[third + 1..].into()),
        None => (opened.into(), String::new()),
    }
}

/// Whether transactions up to `xid_max` may be others there than they were: by places as
/// `database.home.timeline.recovery.xid_next`. After another recovery, only those from `xid_next` on are.
pub(super) fn is_elsewhere(place: &str, before: &str, xid_max: u64) -> bool {
    let (mut place, mut before) = (place.split('.'), before.split('.'));
    let Some(part) = (0..4).find(|_| place.next() != before.next()) else { return false };
    let mut xid_next = || place.next()?.parse().ok();
    part < 3 || xid_next().is_some_and(|xid_next: u64| xid_max > xid_next)
}

/// Takes the marks out of a position that the server gave. They say where to begin looking in the ids, and
/// those of a server that has crashed since may be given again.
pub(super) fn forget_marks(position: &mut String) {
    let place_of = |wanted| position.bytes().position(|byte| byte == wanted);
    if let (Some(marks), Some(end)) = (place_of(b';'), place_of(b'|')) {
        position.drain(marks.min(end)..end);
    }
}

/// The number from which on no transaction had begun: the greater one of both snapshots of a position, each
/// `xmin:xmax:…`.
pub(super) fn xid_max(position: &str) -> u64 {
    let number = |snapshot: &str| snapshot.split(':').nth(1)?.parse().ok();
    position.split('|').take(2).filter_map(number).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_told_from_its_place() {
        assert_eq!(split_place("5:5:||"), ("5:5:||".into(), "".into()));
        assert_eq!(split_place("5:5:|7:7:|4096|16384.7.1"), ("5:5:|7:7:|4096".into(), "16384.7.1".into()));
        assert_eq!(split_place("5:5:|||a"), ("5:5:||".into(), "a".into()));
        assert_eq!(split_place("5:5:;0;7|||a"), ("5:5:;0;7||".into(), "a".into()));
    }

    #[test]
    fn another_place_is_told_from_the_same_after_a_crash() {
        let before = "5.731.00000001.a.700";
        assert!(!is_elsewhere(before, before, 900));
        for other in ["6.731.00000001.a.700", "5.800.00000001.a.700", "5.731.00000002.a.700", ""] {
            assert!(is_elsewhere(other, before, 0), "{other}");
        }
        assert!(!is_elsewhere("5.731.00000001.b.900", before, 900), "none of its numbers was lost");
        assert!(is_elsewhere("5.731.00000001.b.899", before, 900));
    }

    #[test]
    fn a_position_is_one_without_its_marks() {
        for (given, without) in [
            ("5:8:5,6;5,7;10,12||", "5:8:5,6||"),
            ("5:8:5,6;0;1|6:12:6|4096", "5:8:5,6|6:12:6|4096"),
            ("5:8:5,6||", "5:8:5,6||"),
            ("", ""),
        ] {
            let mut position = given.to_string();
            forget_marks(&mut position);
            assert_eq!(position, without);
        }
    }

    #[test]
    fn the_later_snapshot_of_a_position_counts() {
        assert_eq!(xid_max("5:8:5,6||"), 8);
        assert_eq!(xid_max("5:8:5,6|6:12:6|4096"), 12);
        assert_eq!(xid_max("5:8:5,6;5;1|6:12:;9;7|4096"), 12);
        assert_eq!(xid_max(""), 0);
    }
}
