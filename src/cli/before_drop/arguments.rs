//! What may be typed behind `pgwake before-drop`.

use clap::Args;

#[derive(Debug, Args)]
#[command(
    override_usage = "\
pgwake before-drop <HANDLER> [--types <TYPES>] [--schemas <SCHEMAS>]
       pgwake before-drop --remove <HANDLER>
       pgwake before-drop --list",
    after_help = "\
A handler is a function of your own. It is called once for each table that a command is about to
drop, also by CASCADE, while the table can still be read. If it fails, nothing is dropped; what it
does is undone with the drop by a ROLLBACK:

  CREATE FUNCTION app.clean_up(target pgwake.ddl_target) RETURNS void …

It needs the schema pgwake and its event triggers: let a superuser run `pgwake install` first."
)]
pub(crate) struct BeforeDrop {
    /// A function, as SQL names it: app.clean_up, or with its argument, app.clean_up(pgwake.ddl_target)
    #[arg(value_name = "HANDLER", required_unless_present = "list")]
    pub(super) handler: Option<String>,

    /// It runs for objects of these types, in the server's words: table, view, 'materialized view', index,
    /// sequence, function, schema, 'table column'
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = "table")]
    pub(super) types: Vec<String>,

    /// It runs for those in these schemas; in all of them by default
    #[arg(long, value_name = "SCHEMAS", value_delimiter = ',')]
    pub(super) schemas: Vec<String>,

    /// It does not run any more. Its name is written as --list shows it
    #[arg(long, conflicts_with_all = ["types", "schemas", "list"])]
    pub(super) remove: bool,

    /// Print the handlers that there are, and end
    #[arg(long, conflicts_with_all = ["handler", "types", "schemas"])]
    pub(super) list: bool,
}
