//! `rookery block …`

use env::Timestamp;
use node::admin::blocks::{self, BlockInfo, NewBlock};
use serde_json::json;

use super::{all_pages, remote_page, with_backend};
use crate::{
    args::{BlockCommand, Group},
    backend::Backend,
    error::CliError,
    output::Row,
};

fn time(at_ms: i64) -> String {
    node::date::rfc5322(Timestamp::from_unix_ms(at_ms))
}

impl Row for BlockInfo {
    const HEADER: &'static [&'static str] =
        &["NETWORK", "STATE", "SINCE", "UNTIL", "TIMES", "BY", "REASON"];
    fn cells(&self) -> Vec<String> {
        let state = if self.in_force { "blocked" } else { "over" };
        vec![
            self.network.clone(),
            state.to_owned(),
            time(self.since_ms),
            self.until_ms.map_or_else(|| "removed".to_owned(), time),
            self.strikes.to_string(),
            self.by.clone(),
            self.reason.clone(),
        ]
    }
}

pub(crate) fn run(group: Group<BlockCommand>) -> Result<(), CliError> {
    with_backend(&group.target, |backend, output| match &group.command {
        BlockCommand::List => all_pages::<BlockInfo>(output, |query| match backend {
            Backend::Direct(direct) => direct.run(blocks::list(&direct.admin, query)),
            Backend::Remote(remote) => remote_page(remote, "blocks", query),
        }),
        BlockCommand::Add { network, seconds, reason } => {
            let new = NewBlock {
                network: network.clone(),
                seconds: *seconds,
                reason: Some(reason.clone()),
            };
            let made: BlockInfo = match backend {
                Backend::Direct(direct) => {
                    direct.run(blocks::add(&direct.admin, &new, "command line"))?
                }
                Backend::Remote(remote) => remote.post(&["blocks"], &new)?,
            };
            output.done(format_args!("blocked {}", made.network), &made)
        }
        BlockCommand::Remove { network } => {
            match backend {
                Backend::Direct(direct) => direct.run(blocks::remove(&direct.admin, network))?,
                Backend::Remote(remote) => remote.delete(&["blocks", network])?,
            }
            output.done(format_args!("{network} is free"), &json!({ "removed": network }))
        }
    })
}
