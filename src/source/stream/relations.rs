//! The tables of the log: what their columns are called, how their values are written, and what their key is.

use super::sql::Answered;
use crate::decode::pgoutput::{RelationColumn, ReplicaIdentity};
use crate::decode::value::{self, Kind};
use crate::event::TableColumn;
use std::collections::HashMap;

/// A table as the log describes it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Relation {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) columns: Vec<TableColumn>,
    /// How the columns are written.
    pub(super) forms: Vec<Form>,
}

/// How the values of a column are written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form {
    /// Its name in JSON, with the colon behind it.
    pub(super) name: String,
    pub(super) kind: Kind,
    modifier: i32,
}

/// The first OID of a type whose name comes with the log (`FirstGenbkiObjectId`, transam.h).
pub(super) const FIRST_NAMED: u32 = 10_000;

#[derive(Debug, Clone)]
struct Type {
    name: String,
    kind: Kind,
}

#[derive(Debug, Default)]
pub(super) struct Relations {
    /// Each with the number of its description.
    known: HashMap<u32, (u64, Relation)>,
    /// How many descriptions have come. Those of a transaction that was held back are taken later than they
    /// came, and others may have come meanwhile: these are set aside until all of it is delivered.
    described: u64,
    set_aside: HashMap<u32, (u64, Relation)>,
    /// Those whose description was not delivered since it changed.
    undelivered: Vec<u32>,
    types: HashMap<u32, Type>,
    /// The OIDs of types in `pg_catalog`, by the names that they have there.
    built_in: HashMap<String, u32>,
    /// Of tables with REPLICA IDENTITY FULL, for which the log has all columns as the key.
    keys: HashMap<u32, Key>,
}

/// A primary key as it was when the connection began.
#[derive(Debug, Default)]
struct Key {
    names: Vec<String>,
    /// Where they stand among the columns. Elsewhere, another column may have been given the name.
    places: Vec<usize>,
}

impl Relations {
    /// Takes the answer that names the types there are.
    pub(super) fn found_types(&mut self, rows: &Answered) {
        for row in 0..rows.rows() {
            let [oid, element] = [0, 3].map(|column| rows.number(row, column).unwrap_or(0) as u32);
            let [name, in_catalog] = [1, 4].map(|column| rows.text(row, column).unwrap_or_default());
            let category = rows.text(row, 2).and_then(|text| text.bytes().next()).unwrap_or(0);
            let kind = Kind::of(oid, category, element);
            self.types.insert(oid, Type { name, kind });
            self.built_in.insert(in_catalog, oid);
        }
    }

    /// A type of which the log tells no more than the name; of a domain, the name of what is below it.
    pub(super) fn name_type(&mut self, oid: u32, schema: &[u8], name: &[u8]) {
        let [schema, name] = [schema, name].map(String::from_utf8_lossy);
        let below = self.built_in.get(&*name).filter(|_| schema == "pg_catalog");
        let known = below.and_then(|below| self.types.get(below)).cloned();
        let named = || Type { name: format!("{schema}.{name}"), kind: Kind::of(oid, 0, 0) };
        self.types.insert(oid, known.unwrap_or_else(named));
    }

    pub(super) fn has_types(&self) -> bool {
        !self.types.is_empty()
    }

    /// Takes the answer that names the columns of the primary keys of tables with REPLICA IDENTITY FULL.
    pub(super) fn found_keys(&mut self, rows: &Answered) {
        self.keys.clear();
        for row in 0..rows.rows() {
            let table = rows.number(row, 0).unwrap_or(0) as u32;
            let column = rows.text(row, 1).unwrap_or_default();
            self.keys.entry(table).or_default().names.push(column);
        }
    }

    /// The number of a description that comes now.
    pub(super) fn next_number(&mut self) -> u64 {
        self.described += 1;
        self.described
    }

    /// Takes a description. It comes again with each connection, and when nothing has changed as well.
    pub(super) fn describe<'a>(
        &mut self,
        number: u64,
        id: u32,
        (schema, table): (&[u8], &[u8]),
        identity: ReplicaIdentity,
        columns: impl Iterator<Item = RelationColumn<'a>>,
    ) {
        let mut relation = Relation {
            schema: String::from_utf8_lossy(schema).into_owned(),
            table: String::from_utf8_lossy(table).into_owned(),
            ..Relation::default()
        };
        for column in columns {
            let name = String::from_utf8_lossy(column.name).into_owned();
            let is_key = column.is_key && identity != ReplicaIdentity::Full;
            let (kind, type_name) = match self.types.get(&column.type_oid) {
                Some(known) => (known.kind, known.name.clone()),
                None => (Kind::of(column.type_oid, 0, 0), column.type_oid.to_string()),
            };
            let mut in_json = String::new();
            value::write_text(&mut in_json, name.as_bytes());
            in_json.push(':');
            relation.forms.push(Form { name: in_json, kind, modifier: column.modifier });
            relation.columns.push(TableColumn { name, type_name, is_key });
        }
        if identity == ReplicaIdentity::Full {
            self.mark_key(id, &mut relation.columns);
        }
        self.know(number, id, relation);
    }

    fn know(&mut self, number: u64, id: u32, relation: Relation) {
        let before = self.known.remove(&id);
        let is_same = before.as_ref().is_some_and(|(_, before)| *before == relation);
        self.known.insert(id, (number, relation));
        if !is_same && !self.undelivered.contains(&id) {
            self.undelivered.push(id);
        }
        if let Some(before) = before.filter(|(newer, _)| *newer > number) {
            self.set_aside.insert(id, before);
        }
    }

    /// All of a transaction that was held back is delivered: the last description that came is the one that
    /// holds.
    pub(super) fn replayed(&mut self) {
        for (id, (number, relation)) in std::mem::take(&mut self.set_aside) {
            if self.known.get(&id).is_none_or(|(known, _)| *known < number) {
                self.know(number, id, relation);
            }
        }
    }

    /// Marks the columns of the key, as long as they are sure to be those.
    fn mark_key(&mut self, id: u32, columns: &mut [TableColumn]) {
        let Some(key) = self.keys.get_mut(&id) else { return };
        let is_named = |(_, column): &(usize, &TableColumn)| key.names.contains(&column.name);
        let places: Vec<_> = columns.iter().enumerate().filter(is_named).map(|(place, _)| place).collect();
        if key.places.is_empty() {
            key.places.clone_from(&places);
        }
        if key.places == places {
            places.iter().for_each(|place| columns[*place].is_key = true);
        } else {
            self.keys.remove(&id);
        }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Relation> {
        self.known.get(&id).map(|(_, relation)| relation)
    }

    /// Whether the description is to be delivered first; once for each.
    #[inline]
    pub(super) fn take_undelivered(&mut self, id: u32) -> bool {
        !self.undelivered.is_empty() && {
            let before = self.undelivered.len();
            self.undelivered.retain(|undelivered| *undelivered != id);
            self.undelivered.len() < before
        }
    }
}
