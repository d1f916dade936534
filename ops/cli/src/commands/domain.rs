//! `rookery domain …`

use node::admin::domains::{self, DomainInfo};
use serde_json::json;

use super::{all_pages, remote_page, with_backend};
use crate::{
    args::{DomainCommand, Group},
    backend::Backend,
    error::CliError,
    output::Row,
};

impl Row for DomainInfo {
    const HEADER: &'static [&'static str] = &["DOMAIN", "CATCH-ALL"];
    fn cells(&self) -> Vec<String> {
        vec![self.domain.clone(), self.catch_all.clone().unwrap_or_else(|| "none".to_owned())]
    }
}

pub(crate) fn run(group: Group<DomainCommand>) -> Result<(), CliError> {
    with_backend(&group.target, |backend, output| match &group.command {
        DomainCommand::Add { domain } => {
            let made: DomainInfo = match backend {
                Backend::Direct(direct) => direct.run(domains::add(&direct.admin, domain))?,
                Backend::Remote(remote) => {
                    remote.post(&["domains"], &json!({ "domain": domain }))?
                }
            };
            output.done(format_args!("added domain {}", made.domain), &made)
        }
        DomainCommand::List => all_pages::<DomainInfo>(output, |query| match backend {
            Backend::Direct(direct) => direct.run(domains::list(&direct.admin, query)),
            Backend::Remote(remote) => remote_page(remote, "domains", query),
        }),
        DomainCommand::Remove { domain } => {
            match backend {
                Backend::Direct(direct) => direct.run(domains::remove(&direct.admin, domain))?,
                Backend::Remote(remote) => remote.delete(&["domains", domain])?,
            }
            output.done(format_args!("removed domain {domain}"), &json!({ "removed": domain }))
        }
        DomainCommand::CatchAll { domain, target } => {
            let target = (target != "none").then_some(target.as_str());
            let now: DomainInfo = match backend {
                Backend::Direct(direct) => {
                    direct.run(domains::set_catch_all(&direct.admin, domain, target))?
                }
                Backend::Remote(remote) => {
                    remote.put(&["domains", domain, "catch-all"], &json!({ "target": target }))?
                }
            };
            match &now.catch_all {
                Some(to) => output.done(
                    format_args!("mail for unknown addresses at {} goes to {to}", now.domain),
                    &now,
                ),
                None => output.done(
                    format_args!("mail for unknown addresses at {} is refused", now.domain),
                    &now,
                ),
            }
        }
    })
}
