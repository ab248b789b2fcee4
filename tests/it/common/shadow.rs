//! A copy of tables in memory: takes the events of a stream in their order, and asserts that each fits what
//! it holds. Transactions count once they are committed, also those that were given out before.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Values by the names of their columns.
pub(crate) type Row = BTreeMap<String, Value>;

/// The table by whose rows a shadow hears of DDL in its place among the changes. Messages would not do: those
/// of a subtransaction that was rolled back may come.
const DDL: &str = "ddl";

#[derive(Debug, Default)]
struct Table {
    /// The columns by which the log names a row; without any, it does so by all of its values.
    key: Vec<String>,
    rows: HashMap<String, Vec<Row>>,
}

/// What one stream was given.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    reader: String,
    tables: BTreeMap<String, Table>,
    /// What belongs to transactions that are not committed, by the number of the whole transaction.
    open: HashMap<u64, Vec<Value>>,
    /// The one whose events come now.
    current: Option<u64>,
    prepared: HashMap<String, Vec<Value>>,
    position: (u64, u64),
    /// Where the rows of a snapshot stand.
    rows_at: u64,
    schemas: HashMap<String, Value>,
    /// How often the columns of a table were told.
    pub(crate) told: HashMap<String, usize>,
    /// Position, place, kind and row of each change that was committed.
    pub(crate) changes: Vec<Value>,
    /// All events but schemas, in their order, by name.
    pub(crate) events: Vec<Value>,
    /// Channel and payload of each message that counts.
    pub(crate) messages: Vec<(String, String)>,
    /// How many events came before the commit of their transaction.
    pub(crate) early: usize,
}

impl Shadow {
    pub(crate) fn new(reader: &str) -> Self {
        Shadow { reader: reader.into(), ..Shadow::default() }
    }

    /// The rows of a table, in no order.
    pub(crate) fn rows(&self, table: &str) -> Vec<&Row> {
        self.tables.get(table).map(|table| table.rows.values().flatten().collect()).unwrap_or_default()
    }

    /// The columns of a table, as they were told last.
    pub(crate) fn schema(&self, table: &str) -> Option<&Value> {
        self.schemas.get(table)
    }

    /// How many transactions have brought changes, and no end. Others of the server may be open at any time.
    pub(crate) fn open_transactions(&self) -> usize {
        self.open.values().filter(|events| !events.is_empty()).count()
    }

    /// The next event.
    pub(crate) fn take(&mut self, event: Value) {
        if event["event"] == "schema" {
            return self.take_schema(event);
        }
        self.check_position(&event);
        match event["event"].as_str().unwrap() {
            "listening" => return,
            "begin" => self.begin(&event),
            "change" if event["snapshot"] == true => self.apply(&event),
            "change" => self.keep(&event),
            "message" if event["transactional"] == true => self.keep(&event),
            "message" => self.take_message(&event),
            "commit" => {
                let events = match event["gid"].as_str() {
                    // PostgreSQL does not tell that a transaction was prepared which changed nothing.
                    Some(gid) => self.prepared.remove(gid).unwrap_or_default(),
                    None => self.end(&event),
                };
                for event in events {
                    self.commit(&event);
                }
            }
            "prepare" => {
                let events = self.end(&event);
                self.prepared.insert(event["gid"].as_str().unwrap().into(), events);
            }
            "rollback" => self.roll_back(&event),
            _ => panic!("{}: {event}", self.reader),
        }
        self.events.push(event);
    }

    fn take_schema(&mut self, event: Value) {
        *self.told.entry(name(&event)).or_default() += 1;
        let before = self.schemas.insert(name(&event), event["columns"].clone());
        assert_ne!(before.as_ref(), Some(&event["columns"]), "{}: told twice: {event}", self.reader);
    }

    fn check_position(&mut self, event: &Value) {
        let Some(position) = event["position"].as_str() else { return };
        let (lsn, ordinal) = position.rsplit_once('/').unwrap();
        let (high, low) = lsn.split_once('/').unwrap();
        let half = |text| u64::from_str_radix(text, 16).unwrap();
        let position = (half(high) << 32 | half(low), ordinal.parse().unwrap());
        if event["snapshot"] == true {
            self.rows_at = position.0;
        } else if position.0 < self.rows_at {
            // It was prepared before the slot was made, and comes with its commit.
            return;
        }
        assert!(position > self.position, "{}: {:?} came before {event}", self.reader, self.position);
        self.position = position;
    }

    fn begin(&mut self, event: &Value) {
        let xid = event["xid"].as_u64().unwrap();
        let is_early = event["lsn"].is_null();
        assert!(is_early || !self.open.contains_key(&xid), "{}: begun twice: {event}", self.reader);
        self.open.entry(xid).or_default();
        self.current = Some(xid);
    }

    fn keep(&mut self, event: &Value) {
        let current = self.current.unwrap_or_else(|| panic!("{}: in no transaction: {event}", self.reader));
        let is_early = event.get("position").is_none();
        self.early += usize::from(is_early);
        assert!(is_early || event["xid"] == current, "{}: not of {current}: {event}", self.reader);
        self.open.get_mut(&current).unwrap().push(event.clone());
    }

    /// The events of a transaction that is over.
    fn end(&mut self, event: &Value) -> Vec<Value> {
        let xid = event["xid"].as_u64().unwrap();
        self.current = None;
        self.open.remove(&xid).unwrap_or_else(|| panic!("{}: never begun: {event}", self.reader))
    }

    fn roll_back(&mut self, event: &Value) {
        self.current = None;
        if let Some(gid) = event["gid"].as_str() {
            self.prepared.remove(gid);
            return;
        }
        let xid = event["xid"].as_u64().unwrap();
        if self.open.remove(&xid).is_none() {
            for events in self.open.values_mut() {
                events.retain(|event| event["xid"] != xid);
            }
        }
    }

    fn commit(&mut self, event: &Value) {
        if event["event"] == "message" {
            return self.take_message(event);
        }
        self.apply(event);
        if event["table"] == DDL {
            self.define(&event["new"]["command"]);
        }
    }

    fn take_message(&mut self, message: &Value) {
        let [channel, payload] = ["channel", "payload"].map(|name| message[name].as_str().unwrap().into());
        self.messages.push((channel, payload));
    }

    fn apply(&mut self, change: &Value) {
        let kept = ["position", "lsn", "op", "table", "key", "old", "new", "changed", "unchanged_toast"];
        self.changes.push(kept.iter().map(|name| change.get(name).cloned().unwrap_or_default()).collect());
        let table = self.tables.entry(name(change)).or_default();
        if let Err(problem) = table.apply(change) {
            panic!("{}: {problem}: {change}", self.reader);
        }
    }

    /// DDL, as the case says it.
    fn define(&mut self, command: &Value) {
        let name = command["table"].as_str().unwrap();
        let mut table = self.tables.remove(name).unwrap_or_default();
        if command["gone"] == true {
            return;
        }
        let rows: Vec<Row> = std::mem::take(&mut table.rows).into_values().flatten().collect();
        for name in &mut table.key {
            if command["rename"][0] == **name {
                *name = command["rename"][1].as_str().unwrap().into();
            }
        }
        for mut row in rows {
            alter(&mut row, command);
            table.hold(row);
        }
        let name = command["rename_to"].as_str().unwrap_or(name).to_string();
        self.tables.insert(name, table);
    }
}

/// The table of a change.
fn name(event: &Value) -> String {
    format!("{}.{}", event["schema"].as_str().unwrap(), event["table"].as_str().unwrap())
}

/// What a DDL command does to a row.
fn alter(row: &mut Row, command: &Value) {
    let text = |value: &Value| value.as_str().map(String::from);
    if let [Some(from), Some(to)] = [0, 1].map(|index| text(&command["rename"][index])) {
        let value = row.remove(&from).unwrap();
        row.insert(to, value);
    }
    if let Some(column) = text(&command["drop"]) {
        row.remove(&column).unwrap();
    }
    if let Some(column) = text(&command["add"][0]) {
        assert_eq!(row.insert(column, command["add"][1].clone()), None);
    }
    if let Some(value) = text(&command["text"]).and_then(|column| row.get_mut(&column))
        && !value.is_null()
    {
        *value = text(value).unwrap_or_else(|| value.to_string()).into();
    }
}

fn row_of(object: &Value) -> Result<Row, String> {
    let object = object.as_object().ok_or("a row is missing")?;
    Ok(object.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

impl Table {
    fn name(&self, row: &Row) -> String {
        if self.key.is_empty() {
            return serde_json::to_string(row).unwrap();
        }
        let values: Vec<_> = self.key.iter().map(|column| &row[column]).collect();
        serde_json::to_string(&values).unwrap()
    }

    fn hold(&mut self, row: Row) {
        self.rows.entry(self.name(&row)).or_default().push(row);
    }

    /// The log names rows by other columns from now on.
    fn take_key(&mut self, key: &Value) {
        let columns: Vec<String> =
            key.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        if self.key != columns {
            let rows: Vec<Row> = std::mem::take(&mut self.rows).into_values().flatten().collect();
            self.key = columns;
            for row in rows {
                self.hold(row);
            }
        }
    }

    fn apply(&mut self, change: &Value) -> Result<(), String> {
        let op = change["op"].as_str().unwrap();
        if op == "truncate" {
            self.rows.clear();
            return Ok(());
        }
        self.take_key(&change["key"]);
        let before = if op == "insert" { None } else { Some(self.remove(change)?) };
        if op == "delete" {
            return Ok(());
        }
        let mut after = row_of(&change["new"])?;
        for column in change["unchanged_toast"].as_array().into_iter().flatten() {
            let column = column.as_str().unwrap();
            let kept = before.as_ref().and_then(|before| before.get(column)).ok_or("nothing to keep")?;
            if after.insert(column.into(), kept.clone()).is_some() {
                return Err("a value is told, and said to be missing".into());
            }
        }
        if let (Some(before), Some(changed)) = (&before, change["changed"].as_array()) {
            let is_changed = |name: &&String| before.get(*name) != after.get(*name);
            let names: Vec<&String> = after.keys().filter(is_changed).collect();
            if names.iter().any(|name| !changed.contains(&Value::from(name.as_str()))) {
                return Err(format!("it changed {names:?}"));
            }
        }
        if !self.key.is_empty() && self.rows.contains_key(&self.name(&after)) {
            return Err("its key is there already".into());
        }
        self.hold(after);
        Ok(())
    }

    /// Takes the row out that a change found.
    fn remove(&mut self, change: &Value) -> Result<Row, String> {
        let old = &change["old"];
        let mut named = if self.key.is_empty() { row_of(old)? } else { row_of(&change["key"])? };
        for (column, value) in &mut named {
            *value = old.get(column).unwrap_or(value).clone();
        }
        let name = self.name(&named);
        let row = self.rows.get_mut(&name).and_then(Vec::pop).ok_or("it changes a row that is not there")?;
        if self.rows[&name].is_empty() {
            self.rows.remove(&name);
        }
        for (column, value) in old.as_object().into_iter().flatten() {
            if row.get(column) != Some(value) {
                return Err(format!("the row was {row:?}"));
            }
        }
        Ok(row)
    }
}

impl std::fmt::Display for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reader)
    }
}
