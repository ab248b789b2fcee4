//! One change of a row as JSON. The same texts are filled again and again, so that nothing is allocated
//! for a row once they are large enough.

use super::relations::Relation;
use crate::decode::pgoutput::{Column, Old, Tuple};
use crate::decode::value;
use crate::decode::wire::Malformed;
use crate::event::{Change, ChangeOp, SessionId, Transport};

/// What is not there is empty: no JSON is.
#[derive(Debug)]
pub(super) struct Row {
    op: ChangeOp,
    pub(super) relation: u32,
    key: String,
    old: String,
    new: String,
    changed: String,
    unchanged: String,
}

impl Default for Row {
    fn default() -> Self {
        let [key, old, new, changed, unchanged] = Default::default();
        Row { op: ChangeOp::Truncate, relation: 0, key, old, new, changed, unchanged }
    }
}

impl Row {
    #[inline]
    fn begin(&mut self, op: ChangeOp, relation: u32) {
        (self.op, self.relation) = (op, relation);
        for text in [&mut self.key, &mut self.old, &mut self.new, &mut self.changed, &mut self.unchanged] {
            text.clear();
        }
    }

    pub(super) fn insert(&mut self, id: u32, relation: &Relation, new: Tuple<'_>) -> Result<(), Malformed> {
        self.begin(ChangeOp::Insert, id);
        write_object(&mut self.new, Some(&mut self.key), relation, new.columns(), |_| true)
    }

    /// What was not stored anew stands in the old row, as far as the log has that.
    pub(super) fn update(
        &mut self,
        id: u32,
        relation: &Relation,
        old: Option<Old<'_>>,
        new: Tuple<'_>,
    ) -> Result<(), Malformed> {
        self.begin(ChangeOp::Update, id);
        let old = match old {
            Some(Old::Full(old)) if !is_whole(new, old) => Some(Old::Key(old)),
            other => other,
        };
        match old {
            Some(Old::Full(old)) => {
                write_object(&mut self.new, Some(&mut self.key), relation, merged(new, old), |_| true)?;
                write_object(&mut self.old, None, relation, old.columns(), |_| true)?;
                write_changed(&mut self.changed, relation, old, new);
                return Ok(());
            }
            Some(Old::Key(old)) => {
                write_object(&mut self.new, None, relation, new.columns(), |_| true)?;
                // A key is stored apart, too, where it is large.
                write_object(&mut self.key, None, relation, merged(new, old), |is_key| is_key)?;
                write_object(&mut self.old, None, relation, old.columns(), |is_key| is_key)?;
            }
            None => write_object(&mut self.new, Some(&mut self.key), relation, new.columns(), |_| true)?,
        }
        let unchanged = new.columns().map(|column| matches!(column, Column::Unchanged));
        write_names(&mut self.unchanged, relation, unchanged);
        Ok(())
    }

    pub(super) fn delete(&mut self, id: u32, relation: &Relation, old: Old<'_>) -> Result<(), Malformed> {
        self.begin(ChangeOp::Delete, id);
        let (Old::Key(tuple) | Old::Full(tuple)) = old;
        let is_whole = matches!(old, Old::Full(_));
        let is_wanted = |is_key| is_whole || is_key;
        write_object(&mut self.old, Some(&mut self.key), relation, tuple.columns(), is_wanted)
    }

    pub(super) fn truncate(&mut self, id: u32) {
        self.begin(ChangeOp::Truncate, id);
    }

    /// A row that was there when the stream began, its values as COPY gives them; `None` is NULL.
    pub(super) fn copied<'a>(
        &mut self,
        id: u32,
        relation: &Relation,
        values: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<(), Malformed> {
        self.begin(ChangeOp::Insert, id);
        let columns = values.map(|value| value.map_or(Column::Null, Column::Text));
        write_object(&mut self.new, Some(&mut self.key), relation, columns, |_| true)
    }

    pub(super) fn as_event<'a>(
        &'a self,
        session: SessionId,
        db: &'a str,
        relation: &'a Relation,
    ) -> Change<'a> {
        let given = |text: &'a str| (!text.is_empty()).then_some(text);
        Change {
            key: given(&self.key),
            old: given(&self.old),
            new: given(&self.new),
            changed: given(&self.changed),
            unchanged_toast: given(&self.unchanged),
            transport: Transport::Wal,
            ..Change::of(session, db, self.op, &relation.schema, &relation.table)
        }
    }
}

/// Whether an old row that is said to be whole is. A partitioned table may have REPLICA IDENTITY FULL and its
/// partition none but a key: then all else is NULL in it, which what was left as it was cannot be.
fn is_whole(new: Tuple<'_>, old: Tuple<'_>) -> bool {
    new.columns().zip(old.columns()).all(|columns| columns != (Column::Unchanged, Column::Null))
}

fn merged<'a>(new: Tuple<'a>, old: Tuple<'a>) -> impl Iterator<Item = Column<'a>> {
    new.columns().zip(old.columns()).map(|(new, old)| if new == Column::Unchanged { old } else { new })
}

/// Writes the columns that are wanted and have a value or NULL; nothing at all if no column is wanted. What
/// of it belongs to the key is copied there.
#[inline]
fn write_object<'a>(
    out: &mut String,
    mut key: Option<&mut String>,
    relation: &Relation,
    columns: impl Iterator<Item = Column<'a>>,
    is_wanted: impl Fn(bool) -> bool,
) -> Result<(), Malformed> {
    for (column, (form, about)) in columns.zip(relation.forms.iter().zip(&relation.columns)) {
        if !is_wanted(about.is_key) || matches!(column, Column::Unchanged) {
            continue;
        }
        out.push(if out.is_empty() { '{' } else { ',' });
        let start = out.len();
        out.push_str(&form.name);
        match column {
            Column::Text(text) => value::write(out, form.kind, text),
            Column::Binary(bytes) => value::write_binary(out, form.kind, bytes)?,
            Column::Null | Column::Unchanged => out.push_str("null"),
        }
        if about.is_key
            && let Some(key) = &mut key
        {
            key.push(if key.is_empty() { '{' } else { ',' });
            key.push_str(&out[start..]);
        }
    }
    for object in [Some(out), key].into_iter().flatten().filter(|object| !object.is_empty()) {
        object.push('}');
    }
    Ok(())
}

fn write_changed(out: &mut String, relation: &Relation, old: Tuple<'_>, new: Tuple<'_>) {
    let is_changed = |(new, old): (Column<'_>, Column<'_>)| !matches!(new, Column::Unchanged) && new != old;
    write_names(out, relation, new.columns().zip(old.columns()).map(is_changed));
    // That nothing has changed is known, and said.
    if out.is_empty() {
        out.push_str("[]");
    }
}

/// The names of columns as an array; nothing at all without any.
fn write_names(out: &mut String, relation: &Relation, is_named: impl Iterator<Item = bool>) {
    for (form, _) in relation.forms.iter().zip(is_named).filter(|(_, is_named)| *is_named) {
        out.push(if out.is_empty() { '[' } else { ',' });
        // Without the colon behind it.
        out.push_str(&form.name[..form.name.len() - 1]);
    }
    if !out.is_empty() {
        out.push(']');
    }
}
