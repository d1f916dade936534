//! `rookery block …`

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// List all blocks, and those that are over and remembered
    List,
    /// Refuse connections from an address or a network, on all nodes
    Add {
        /// Such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/48
        network: String,
        /// For so long [default: until it is removed]
        #[arg(long = "for", value_name = "SECONDS",
              value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
        seconds: Option<u64>,
        /// Why, for people
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// End a block, and forget it
    Remove {
        /// As the list shows it
        network: String,
    },
}
