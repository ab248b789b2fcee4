//! What may be typed after `subscribe`.

use crate::cli::deliver::Delivery;
use crate::cli::values::{Until, duration};
use clap::Args;
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    override_usage = "\
pgwake subscribe <CHANNEL>... [--slot <SLOT>] [OPTIONS]
       pgwake subscribe --slot <SLOT> --drop-slot",
    after_help = "\
Messages come at least once, in commit order; one that comes again has the same position. A line is
acknowledged when it is written. Without --slot the server keeps nothing for the next run. With
--slot the next run goes on where this one ended, and until then the server keeps its log for it:
when the slot is not needed any more, --drop-slot, or the disk fills up.

It needs wal_level = logical, a role with REPLICATION, and once CREATE in the database, for a
publication without tables, pgwake_messages. `pgwake check` tells. For messages among the
changes of tables, or of all channels: `pgwake stream --table TABLE --messages`."
)]
pub(crate) struct Subscribe {
    /// Names of channels: exact, never folded to lower case, 1 to 63 bytes
    #[arg(required_unless_present = "drop_slot", conflicts_with = "drop_slot", value_name = "CHANNEL")]
    pub(crate) channels: Vec<OsString>,

    #[command(flatten)]
    pub(crate) until: Until,

    /// The slot of this name: made if it is missing, and kept when the command ends
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: Option<String>,

    /// The slot goes with the connection, as it does without --slot
    #[arg(long, requires = "slot")]
    pub(crate) temporary: bool,

    /// The slot is kept by standbys, too, also if it is there already (PostgreSQL 17)
    #[arg(long, requires = "slot", conflicts_with = "temporary")]
    pub(crate) failover: bool,

    /// Drop the slot and end: the server need not keep its log for it any more
    #[arg(long, requires = "slot")]
    pub(crate) drop_slot: bool,

    /// Ask a silent server for a sign of life that often; 0s: never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    pub(crate) heartbeat: Duration,

    #[command(flatten)]
    pub(crate) delivery: Delivery,
}
