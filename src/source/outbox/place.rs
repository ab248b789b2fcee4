//! Where a position comes from: numbers of transactions mean something in one database, on one timeline.

/// A position as `pgwake.open_consumer` gives it, `before|upto|last|place`, without its place; and the place.
pub(super) fn split_place(opened: &str) -> (String, String) {
    match opened.match_indices('|').nth(2) {
        Some((end, _)) => (opened[..end].into(), opened[end + 1..].into()),
        None => (opened.into(), String::new()),
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
    }

    #[test]
    fn the_later_snapshot_of_a_position_counts() {
        assert_eq!(xid_max("5:8:5,6||"), 8);
        assert_eq!(xid_max("5:8:5,6|6:12:6|4096"), 12);
        assert_eq!(xid_max(""), 0);
    }
}
