//! What goes over a replication connection once the server streams: the bytes of a CopyData message flow in,
//! a frame flows out; the status that we send flows the other way. The formats are those of the manual's
//! "Streaming Replication Protocol".

use super::wire::{Malformed, Reader};
use crate::event::Lsn;
use std::time::{Duration, SystemTime};

/// What one CopyData message of the server holds. Times are microseconds since 2000, as [`time`] takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A message of the output plugin. Its start is 0 where the message stands for no place in the log.
    Data { start: Lsn, end: Lsn, sent_at_us: i64, message: &'a [u8] },
    /// Nothing is to be read up to `end` but what was sent already.
    Keepalive { end: Lsn, sent_at_us: i64, wants_reply: bool },
    /// Something else, which may be passed over.
    Unknown(u8),
}

impl<'a> Frame<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (tag, mut fields) = Reader::tagged(bytes)?;
        match tag {
            b'w' => Ok(Frame::Data {
                start: fields.lsn()?,
                end: fields.lsn()?,
                sent_at_us: fields.i64()?,
                message: fields.rest(),
            }),
            b'k' => {
                let (end, sent_at_us) = (fields.lsn()?, fields.i64()?);
                let wants_reply = fields.u8()? != 0;
                fields.finish()?;
                Ok(Frame::Keepalive { end, sent_at_us, wants_reply })
            }
            _ => Ok(Frame::Unknown(tag)),
        }
    }
}

/// The status that is sent to the server. Up to `flushed`, it may forget its log; what is flushed counts as
/// applied, too.
pub(crate) fn status(flushed: Lsn, written: Lsn, now_us: i64, wants_reply: bool) -> [u8; 34] {
    let mut bytes = [0; 34];
    bytes[0] = b'r';
    for (place, Lsn(lsn)) in [(1, written), (9, flushed), (17, flushed)] {
        bytes[place..place + 8].copy_from_slice(&lsn.to_be_bytes());
    }
    bytes[25..33].copy_from_slice(&now_us.to_be_bytes());
    bytes[33] = u8::from(wants_reply);
    bytes
}

/// From 1970 to 2000, where PostgreSQL begins to count.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// The time that is so many microseconds after the beginning of 2000.
pub(crate) fn time(us: i64) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH + POSTGRES_EPOCH;
    let distance = Duration::from_micros(us.unsigned_abs());
    let time = if us < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    // Linux has room for each of them; where a system has not, the nearest that is known is 1970.
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// How many microseconds after the beginning of 2000 a time is.
pub(crate) fn microseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH + POSTGRES_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_frames_are_read_and_others_are_passed_over() {
        let mut bytes = b"w\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\xff\xff\xff\xff\xff\xff\xff\xfe".to_vec();
        let data = |message| Frame::Data {
            start: Lsn(0x1_0000_0002),
            end: Lsn(0x3_0000_0004),
            sent_at_us: -2,
            message,
        };
        assert_eq!(Frame::read(&bytes), Ok(data(b"")));
        bytes.extend(b"message");
        assert_eq!(Frame::read(&bytes), Ok(data(b"message")));
        let keepalive = |wants_reply| Frame::Keepalive { end: Lsn(5), sent_at_us: 6, wants_reply };
        for (reply, wants_reply) in [(0, false), (1, true)] {
            let mut bytes = b"k\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06".to_vec();
            assert_eq!(Frame::read(&bytes).unwrap_err().at, 17);
            bytes.push(reply);
            assert_eq!(Frame::read(&bytes), Ok(keepalive(wants_reply)));
            bytes.push(0);
            assert_eq!(Frame::read(&bytes).unwrap_err().what, "more follows where it should end");
        }
        assert_eq!(Frame::read(b"x123"), Ok(Frame::Unknown(b'x')));
        for end in 0..25 {
            assert!(Frame::read(&b"w123456781234567812345678"[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_status_has_what_is_written_flushed_and_applied() {
        let status = status(Lsn(0x102), Lsn(0x1_0000_0003), -2, true);
        let places = b"r\0\0\0\x01\0\0\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x01\x02";
        let expected = [&places[..], b"\xff\xff\xff\xff\xff\xff\xff\xfe\x01"].concat();
        assert_eq!(&status[..], expected);
    }

    #[test]
    fn times_are_counted_from_2000_and_come_back() {
        assert_eq!(time(0), SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800));
        for us in [
            0,
            1,
            -1,
            817_862_400_123_456,
            -946_684_800_000_000,
            -946_684_800_000_001,
            i64::MAX,
            i64::MIN + 1,
        ] {
            assert_eq!(microseconds(time(us)), us);
        }
        let far = Duration::from_secs(1 << 62);
        let ends = [SystemTime::UNIX_EPOCH.checked_add(far), SystemTime::UNIX_EPOCH.checked_sub(far)];
        assert_eq!(ends.map(|end| end.map(microseconds)), [Some(i64::MAX), Some(i64::MIN)]);
        assert_eq!(microseconds(time(i64::MIN)), i64::MIN);
    }
}
