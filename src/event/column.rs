//! A column of a table.

/// A column of a table as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type, as `format_type` writes it for built-in types, or with its schema.
    pub type_name: String,
    /// Whether it belongs to the key.
    pub is_key: bool,
}
