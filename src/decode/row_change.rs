//! A row change as the schema `pgwake` writes it, in JSON, taken apart; see `install/README.md`.

use super::object::{Members, unescape};
use crate::event::{Change, ChangeOp, SessionId, Transport};
use std::ops::Range;

/// A change that was taken apart: places in its text, and names as they are. One is used again and again, so
/// that nothing is allocated for each change.
#[derive(Debug, Default)]
pub(crate) struct RowChange {
    op: Option<ChangeOp>,
    schema: String,
    table: String,
    partition: String,
    unconvertible: String,
    key: Option<Range<usize>>,
    old: Option<Range<usize>>,
    new: Option<Range<usize>>,
    changed: Option<Range<usize>>,
    xid: Option<u64>,
    id: Option<u64>,
    reference: Option<u64>,
    oversize: Option<u64>,
    transport: Transport,
}

impl RowChange {
    /// Takes a change apart; `false` when the text is none.
    pub(crate) fn read(&mut self, text: &str) -> bool {
        let (mut has_schema, mut has_table) = (false, false);
        for place in [&mut self.key, &mut self.old, &mut self.new, &mut self.changed] {
            *place = None;
        }
        (self.op, self.xid, self.id, self.reference, self.oversize) = (None, None, None, None, None);
        self.partition.clear();
        self.unconvertible.clear();
        for (name, value) in Members::of(text) {
            let given = &text[value.clone()];
            let is_null = given == "null";
            match name {
                "op" => self.op = op(given),
                "schema" => has_schema = unescape(given, &mut self.schema),
                "table" => has_table = unescape(given, &mut self.table),
                "partition" => _ = unescape(given, &mut self.partition),
                "unconvertible" => _ = unescape(given, &mut self.unconvertible),
                "key" if !is_null => self.key = Some(value),
                "old" => self.old = Some(value),
                "new" => self.new = Some(value),
                "changed" => self.changed = Some(value),
                "xid" => self.xid = given.parse().ok(),
                "id" => self.id = given.parse().ok(),
                "reference" => self.reference = given.parse().ok(),
                "oversize" => self.oversize = given.parse().ok(),
                "transport" if given == "\"notify\"" => self.transport = Transport::Notify,
                "transport" => self.transport = Transport::Outbox,
                _ => {}
            }
        }
        self.op.is_some() && has_schema && has_table
    }

    /// The outbox row in which the statement's changes lie that did not fit into a notification.
    pub(crate) fn reference(&self) -> Option<u64> {
        self.reference
    }

    /// It was notified, whatever it says of itself.
    pub(crate) fn was_notified(&mut self) {
        self.transport = Transport::Notify;
    }

    /// The change as it is delivered. `text` is what was read.
    pub(crate) fn as_event<'a>(
        &'a self,
        session: SessionId,
        db: &'a str,
        text: &'a str,
    ) -> Option<Change<'a>> {
        let part = |place: &Option<Range<usize>>| place.clone().and_then(|place| text.get(place));
        let given = |name: &'a str| (!name.is_empty()).then_some(name);
        Some(Change {
            partition: given(&self.partition),
            key: part(&self.key),
            old: part(&self.old),
            new: part(&self.new),
            changed: part(&self.changed),
            unconvertible: given(&self.unconvertible),
            oversize: self.oversize,
            xid: self.xid,
            id: self.id,
            transport: self.transport,
            json: text,
            ..Change::of(session, db, self.op?, &self.schema, &self.table)
        })
    }
}

fn op(given: &str) -> Option<ChangeOp> {
    Some(match given {
        "\"insert\"" => ChangeOp::Insert,
        "\"update\"" => ChangeOp::Update,
        "\"delete\"" => ChangeOp::Delete,
        "\"truncate\"" => ChangeOp::Truncate,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_apart_and_the_next_leaves_nothing_of_it() {
        let mut change = RowChange::default();
        let text = r#"{"op":"update","schema":"public","table":"say \"hi\"","partition":"p",
            "key":{"id":1},"old":{"n":1},"new":{"n":2},"changed":["n"],
            "xid":7,"id":4096,"transport":"outbox"}"#;
        assert!(change.read(text));
        let told = change.as_event(SessionId(3), "app", text).unwrap();
        assert_eq!((told.op, told.schema, told.table), (ChangeOp::Update, "public", "say \"hi\""));
        assert_eq!(
            (told.key, told.old, told.new),
            (Some("{\"id\":1}"), Some("{\"n\":1}"), Some("{\"n\":2}"))
        );
        assert_eq!((told.changed, told.partition), (Some("[\"n\"]"), Some("p")));
        assert_eq!((told.xid, told.id, told.transport), (Some(7), Some(4096), Transport::Outbox));
        let text = r#"{"op":"truncate","schema":"s","table":"t","key":null,"transport":"notify"}"#;
        assert!(change.read(text));
        let told = change.as_event(SessionId(3), "app", text).unwrap();
        assert_eq!((told.op, told.schema, told.table), (ChangeOp::Truncate, "s", "t"));
        assert_eq!((told.key, told.old, told.new, told.changed), (None, None, None, None));
        assert_eq!((told.partition, told.xid, told.id), (None, None, None));
        assert_eq!(told.transport, Transport::Notify);
    }

    #[test]
    fn what_is_no_change_is_not_taken_for_one() {
        let mut change = RowChange::default();
        for bad in [
            "",
            "hello",
            "{}",
            r#"{"op":"merge","schema":"s","table":"t"}"#,
            r#"{"op":"insert","table":"t"}"#,
        ] {
            assert!(!change.read(bad), "{bad}");
        }
    }
}
