//! A copy of the tables in memory: takes changes in their order, and asserts that each fits what it holds.

use super::tables::Table;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Debug)]
struct Row {
    key: Value,
    partition: Value,
    /// Null where the changes have nothing but keys.
    values: Value,
}

/// The rows of a table by their keys; where there is no key, by their values, which may be there repeatedly.
struct TableShadow {
    payload: &'static str,
    rows: HashMap<String, Vec<Row>>,
}

/// What one reader was given.
pub(crate) struct Shadow {
    reader: &'static str,
    tables: HashMap<String, TableShadow>,
    /// Changes of one outbox row, which one statement made at once.
    statement: Vec<Value>,
    ids: HashSet<u64>,
    /// What came since the last fence.
    pub(crate) changes: BTreeMap<u64, Value>,
    pub(crate) fence: Option<u64>,
    pub(crate) commands: usize,
}

impl Shadow {
    pub(crate) fn new(reader: &'static str, tables: &[Table]) -> Self {
        let payloads = tables.iter().map(|table| (table.name.as_str(), table.payload));
        let empty = |(name, payload): (&str, _)| (name.into(), TableShadow { payload, rows: HashMap::new() });
        let tables = payloads.chain([("ddl_log", "row")]).map(empty).collect();
        Shadow {
            reader,
            tables,
            statement: Vec::new(),
            ids: HashSet::new(),
            changes: BTreeMap::new(),
            fence: None,
            commands: 0,
        }
    }

    /// The next change.
    pub(crate) fn take(&mut self, change: Value) {
        let id = change["id"].as_u64().unwrap();
        assert!(self.ids.insert(id), "{}: twice: {change}", self.reader);
        self.changes.insert(id, change.clone());
        if self.statement.first().is_some_and(|first| first["id"].as_u64().unwrap() / 256 != id / 256) {
            self.end_statement();
        }
        let is_log = change["table"] == "ddl_log";
        self.statement.push(change);
        if is_log {
            self.end_statement();
        }
    }

    /// Applies the changes of a statement. Keys may have gone round among its rows.
    fn end_statement(&mut self) {
        let statement = std::mem::take(&mut self.statement);
        let name = statement[0]["table"].as_str().unwrap();
        let table = self.tables.get_mut(name).unwrap_or_else(|| panic!("{name}"));
        let mut before = Vec::new();
        for change in &statement {
            assert!(change.get("unconvertible").is_none() && change.get("oversize").is_none(), "{change}");
            match change["op"].as_str().unwrap() {
                "insert" => before.push(None),
                "truncate" => table.truncate(&change["partition"]),
                _ => match table.remove(change) {
                    Ok(row) => before.push(Some(row)),
                    Err(problem) => panic!("{}: {problem}: {change}", self.reader),
                },
            }
        }
        for (change, before) in statement.iter().zip(before) {
            if change["op"] != "delete"
                && let Err(problem) = table.insert(change, before)
            {
                panic!("{}: {problem}: {change}", self.reader);
            }
        }
        if name == "ddl_log" {
            self.on_command(&statement[0]["new"]);
        }
    }

    /// The writers log each DDL command in its transaction, so that it has its place among the changes.
    fn on_command(&mut self, command: &Value) {
        let text = |name: &str| command[name].as_str().unwrap();
        if text("command") == "fence" {
            self.fence = command["argument"].as_u64();
            return;
        }
        self.commands += 1;
        let table = self.tables.get_mut(text("relation")).unwrap();
        for mut row in std::mem::take(&mut table.rows).into_values().flatten() {
            for fields in [&mut row.key, &mut row.values].into_iter().filter_map(Value::as_object_mut) {
                alter(fields, text("command"), text("name"), &command["argument"]);
            }
            table.hold(row);
        }
    }

    /// Asserts that the rows of a table are those.
    pub(crate) fn assert_holds(&self, table: &Table, rows: Vec<(Value, Value)>) {
        let shadow = &self.tables[&table.name];
        let mut actual: HashMap<String, Vec<Row>> = HashMap::new();
        for (key, values) in rows {
            let values = if shadow.payload == "key" && !key.is_null() { Value::Null } else { values };
            let row = Row { key, partition: Value::Null, values };
            actual.entry(row.name()).or_default().push(row);
        }
        let place = format!("{}: {}, {:?}, payload {}", self.reader, table.name, table.shape, table.payload);
        for (name, rows) in &actual {
            let held = shadow.rows.get(name).unwrap_or_else(|| panic!("{place}: a row is missing: {rows:?}"));
            assert_eq!(held.len(), rows.len(), "{place}: {rows:?}");
            held.iter().zip(rows).for_each(|(held, row)| assert_eq!(held.values, row.values, "{place}"));
        }
        let is_gone = |name: &&String| !actual.contains_key(*name);
        assert_eq!(shadow.rows.keys().find(is_gone), None, "{place}: a row is there no more");
    }
}

/// What a DDL command does to a row.
fn alter(fields: &mut Map<String, Value>, command: &str, name: &str, argument: &Value) {
    match command {
        "add" if fields.contains_key("n") => drop(fields.insert(name.into(), argument.clone())),
        "drop" => drop(fields.remove(name)),
        "rename" => {
            if let Some(value) = fields.remove(name) {
                fields.insert(argument.as_str().unwrap().into(), value);
            }
        }
        "text" => {
            if let Some(value) = fields.get_mut(name).filter(|value| value.is_number()) {
                *value = value.to_string().into();
            }
        }
        "add" | "bigint" => {}
        other => panic!("{other}"),
    }
}

impl Row {
    fn name(&self) -> String {
        if self.key.is_null() { self.values.to_string() } else { self.key.to_string() }
    }
}

impl TableShadow {
    fn hold(&mut self, row: Row) {
        self.rows.entry(row.name()).or_default().push(row);
    }

    fn truncate(&mut self, partition: &Value) {
        for rows in self.rows.values_mut() {
            rows.retain(|row| !partition.is_null() && row.partition != *partition);
        }
        self.rows.retain(|_, rows| !rows.is_empty());
    }

    /// Takes the row out that a change found.
    fn remove(&mut self, change: &Value) -> Result<Row, String> {
        let old = &change["old"];
        let mut key = change["key"].clone();
        for (name, value) in key.as_object_mut().into_iter().flatten() {
            *value = old.get(name).unwrap_or(value).clone();
        }
        let name = if key.is_null() { old.to_string() } else { key.to_string() };
        let row = self.rows.get_mut(&name).and_then(Vec::pop).ok_or("it changes a row that is not there")?;
        if self.rows[&name].is_empty() {
            self.rows.remove(&name);
        }
        let is_partial = self.payload == "changed" && change["op"] == "update";
        let fits = match self.payload {
            "key" if !key.is_null() => change.get("new").is_none(),
            _ if is_partial => {
                old.as_object().unwrap().iter().all(|(name, value)| row.values[name] == *value)
            }
            _ => row.values == *old,
        };
        if fits { Ok(row) } else { Err(format!("the row was {}", row.values)) }
    }

    /// Puts the row in that a change made.
    fn insert(&mut self, change: &Value, before: Option<Row>) -> Result<(), String> {
        let key = change["key"].clone();
        let mut values = match self.payload {
            "key" if !key.is_null() => Value::Null,
            _ => change["new"].clone(),
        };
        if let Some(before) = before.filter(|_| values.is_object()) {
            let names: HashSet<&str> =
                change["changed"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let new = change["new"].as_object().unwrap();
            let has_all = |fields: &Value| fields.as_object().unwrap().keys().all(|n| names.contains(&**n));
            if self.payload == "changed" {
                if new.len() != names.len() || !has_all(&change["new"]) || !has_all(&change["old"]) {
                    return Err("it names other columns than it tells".into());
                }
                values = before.values;
                values.as_object_mut().unwrap().extend(new.clone());
            } else if new.iter().any(|(n, value)| before.values[n] != *value && !names.contains(&**n)) {
                return Err("it leaves out a column that it changed".into());
            }
        }
        let row = Row { key, partition: change["partition"].clone(), values };
        let name = row.name();
        if !row.key.is_null() && self.rows.contains_key(&name) {
            return Err("its key is there already".into());
        }
        self.hold(row);
        Ok(())
    }
}
