//! What a DDL command was about.

/// One object that a DDL command was about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DdlTarget {
    /// `target`: named in the command, or made by it; `cascade`: went along; `rewrite`: a table that was
    /// written anew.
    pub role: String,
    /// Such as `table` or `table column`.
    pub object_type: String,
    /// Its schema, if such objects have one.
    pub schema: Option<String>,
    /// Its name, where one name is enough.
    pub name: Option<String>,
    /// The column, of a column.
    pub column: Option<String>,
    /// Its full name as SQL takes it.
    pub identity: String,
    /// Its number in the catalog.
    pub oid: u32,
    /// The column's number, or 0.
    pub subid: i32,
    /// Whether it is there, when the event is sent.
    pub exists: bool,
}
