//! The tables that are written at random: of many shapes, each watched in one of three ways.

use crate::common::Sql;
use serde_json::Value;

/// What makes the key of a table, and what else is special about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Int,
    Bigint,
    Text,
    Uuid,
    Composite,
    Deferrable,
    Partitioned,
    Generated,
    ReplicaIdentity,
    Keyless,
}

const SHAPES: [Shape; 10] = [
    Shape::Int,
    Shape::Bigint,
    Shape::Text,
    Shape::Uuid,
    Shape::Composite,
    Shape::Deferrable,
    Shape::Partitioned,
    Shape::Generated,
    Shape::ReplicaIdentity,
    Shape::Keyless,
];

pub(crate) const PARTITIONS: [&str; 3] = ["low", "high", "rest"];

/// Of columns that are no key.
const TYPES: [&str; 15] = [
    "int",
    "text",
    "numeric",
    "timestamptz",
    "json",
    "int",
    "bytea",
    "int[]",
    "bigint",
    "float8",
    "jsonb",
    "bool",
    "interval",
    "text[]",
    "date",
];

pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) payload: &'static str,
    columns: Vec<&'static str>,
}

/// A column as the server has it now.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) is_generated: bool,
}

/// All tables: every shape with every payload, with two sets of columns.
pub(crate) fn all() -> Vec<Table> {
    let table = |number: usize| {
        let shape = SHAPES[number / 3 % SHAPES.len()];
        let payload = match (["row", "changed", "key"][number % 3], shape) {
            // Nobody could know which of the rows was changed.
            ("changed", Shape::Keyless) => "row",
            (payload, _) => payload,
        };
        let columns = (0..2 + number % 5).map(|column| TYPES[(4 * number + column) % TYPES.len()]).collect();
        Table { name: format!("t{number}"), shape, payload, columns }
    };
    (0..60).map(table).collect()
}

impl Table {
    pub(crate) fn create(&self) -> String {
        let Table { name, shape, payload, columns } = self;
        let (key, constraint) = match shape {
            Shape::Int | Shape::Partitioned | Shape::Generated => ("k1 int, ", ", PRIMARY KEY (k1)"),
            Shape::Bigint => ("k1 bigint, ", ", PRIMARY KEY (k1)"),
            Shape::Text => ("k1 text, ", ", PRIMARY KEY (k1)"),
            Shape::Uuid => ("k1 uuid, ", ", PRIMARY KEY (k1)"),
            Shape::Composite => ("k1 int, k2 text, ", ", PRIMARY KEY (k2, k1)"),
            Shape::Deferrable => ("k1 int, ", ", PRIMARY KEY (k1) DEFERRABLE"),
            Shape::ReplicaIdentity => ("k1 int NOT NULL, ", ", UNIQUE (k1)"),
            Shape::Keyless => ("", ""),
        };
        let columns: String =
            columns.iter().enumerate().map(|(at, kind)| format!(", c{at} {kind}")).collect();
        let (generated, behind, after) = match shape {
            Shape::Generated => (", g int GENERATED ALWAYS AS (n * 2) STORED", "", String::new()),
            Shape::Partitioned => {
                let partition = |at: usize, bounds: &str| {
                    format!("CREATE TABLE {name}_{} PARTITION OF {name} {bounds};", PARTITIONS[at])
                };
                let all = partition(0, "FOR VALUES FROM (MINVALUE) TO (20)")
                    + &partition(1, "FOR VALUES FROM (20) TO (100)")
                    + &partition(2, "DEFAULT");
                ("", "PARTITION BY RANGE (k1)", all)
            }
            Shape::ReplicaIdentity => {
                let alter = format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_k1_key;");
                ("", "", alter)
            }
            _ => ("", "", String::new()),
        };
        format!(
            "CREATE TABLE {name} ({key}n int{generated}{columns}{constraint}) {behind}; {after}
             SELECT pgwake.watch_table('{name}', payload => '{payload}');"
        )
    }

    /// How many columns the key has. They are the first ones.
    fn key_width(&self) -> usize {
        match self.shape {
            Shape::Keyless => 0,
            Shape::Composite => 2,
            _ => 1,
        }
    }

    /// What stands in the columns that select a row: in the key, or in `n`.
    pub(crate) fn key_expressions(&self, number: &str) -> Vec<String> {
        match self.shape {
            // Some are beyond what a number in JSON holds.
            Shape::Bigint => vec![format!("(9007199254740960 + {number})")],
            Shape::Text => vec![format!("('k\\é\"''' || {number})")],
            Shape::Uuid => {
                vec![format!("('00000000-0000-4000-8000-' || lpad(({number})::text, 12, '0'))::uuid")]
            }
            Shape::Composite => vec![format!("({number}) % 7"), format!("('k' || {number})")],
            _ => vec![number.into()],
        }
    }

    /// The columns as they are now: those of the key, or `n` where there is none, and the others.
    pub(crate) fn columns(&self, sql: &mut Sql) -> (Vec<Column>, Vec<Column>) {
        let columns = sql.value(&format!(
            "SELECT json_agg(json_build_array(attname, format_type(atttypid, NULL), attgenerated <> '')
               ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped",
            self.name
        ));
        let columns: Vec<(String, String, bool)> = serde_json::from_str(&columns).unwrap();
        let column = |(name, kind, is_generated)| Column { name, kind, is_generated };
        let mut key: Vec<Column> = columns.into_iter().map(column).collect();
        let others = key.split_off(self.key_width().max(1));
        (key, others)
    }

    /// The rows as the server has them now, each with its key.
    pub(crate) fn rows(&self, sql: &mut Sql) -> Vec<(Value, Value)> {
        let (first, rest) = self.columns(sql);
        let key: Vec<&str> = first.iter().take(self.key_width()).map(|column| column.name.as_str()).collect();
        let all: Vec<String> = first.iter().chain(&rest).map(as_delivered).collect();
        let rows = sql.value(&format!(
            "SELECT coalesce(json_agg(row_to_json(r)), '[]') FROM (SELECT {} FROM {}) r",
            all.join(", "),
            self.name
        ));
        let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
        let key_of = |row: &Value| match self.shape {
            Shape::Keyless => Value::Null,
            _ => key.iter().map(|name| (name.to_string(), row[*name].clone())).collect(),
        };
        rows.into_iter().map(|row| (key_of(&row), row)).collect()
    }
}

/// A column as changes have it: its text form, unless JSON holds the value as it is.
fn as_delivered(column: &Column) -> String {
    let name = &column.name;
    match column.kind.as_str() {
        "integer" | "text" | "json" | "jsonb" | "boolean" | "double precision" => name.clone(),
        "bigint" => format!(
            "CASE WHEN abs({name}) <= 9007199254740992 THEN to_json({name})
               ELSE to_json({name}::text) END {name}"
        ),
        _ => format!("{name}::text"),
    }
}
