//! `rookery domain …`

use node::admin::{
    dkim::{self, Change, DkimKeyInfo, NewDomain},
    domains::{self, DomainInfo},
};
use serde_json::json;

use super::{all_pages, remote_page, with_backend};
use crate::{
    args::{DkimCommand, DomainCommand, Group},
    backend::Backend,
    error::CliError,
    output::{Output, Row},
};

impl Row for DomainInfo {
    const HEADER: &'static [&'static str] = &["DOMAIN", "CATCH-ALL"];
    fn cells(&self) -> Vec<String> {
        vec![self.domain.clone(), self.catch_all.clone().unwrap_or_else(|| "none".to_owned())]
    }
}

impl Row for DkimKeyInfo {
    const HEADER: &'static [&'static str] = &["SELECTOR", "ALGORITHM", "STATE", "DNS", "TROUBLE"];
    fn cells(&self) -> Vec<String> {
        let trouble = self.trouble.clone().unwrap_or_else(|| "none".to_owned());
        vec![
            self.selector.clone(),
            self.algorithm.clone(),
            self.state.clone(),
            self.dns.clone(),
            trouble,
        ]
    }
}

/// Records as a zone file has them, for people; programs have them in each key.
fn records(output: &Output, keys: &[DkimKeyInfo]) -> Result<(), CliError> {
    keys.iter().try_for_each(|key| output.remark(format_args!("{}", key.record)))
}

pub(crate) fn run(group: Group<DomainCommand>) -> Result<(), CliError> {
    with_backend(&group.target, |backend, output| match &group.command {
        DomainCommand::Add { domain } => {
            let made: NewDomain = match backend {
                Backend::Direct(direct) => direct.run(dkim::add_domain(&direct.admin, domain))?,
                Backend::Remote(remote) => {
                    remote.post(&["domains"], &json!({ "domain": domain }))?
                }
            };
            output.done(format_args!("added domain {}", made.domain.domain), &made)?;
            if made.dkim.is_empty() {
                return Ok(());
            }
            output.remark(format_args!("publish these records, so that its mail is signed:"))?;
            records(output, &made.dkim)
        }
        DomainCommand::Dkim { domain, action } => {
            let change = match action {
                None | Some(DkimCommand::List) => None,
                Some(DkimCommand::Rotate) => Some(Change::Rotate),
                Some(DkimCommand::Publish) => Some(Change::Publish),
                Some(DkimCommand::Use { selector }) => {
                    Some(Change::Use { selector: selector.clone() })
                }
                Some(DkimCommand::Retire { selector }) => {
                    Some(Change::Retire { selector: selector.clone() })
                }
            };
            let path = ["domains", domain, "dkim"];
            let keys: Vec<DkimKeyInfo> = match (backend, change) {
                (Backend::Direct(direct), None) => {
                    direct.run(dkim::list(&direct.admin, domain, None))?
                }
                (Backend::Direct(direct), Some(change)) => {
                    direct.run(dkim::change(&direct.admin, domain, &change))?
                }
                (Backend::Remote(remote), None) => remote.get(&path, &[])?,
                (Backend::Remote(remote), Some(change)) => remote.post(&path, &change)?,
            };
            output.rows(&keys)?;
            records(output, &keys)
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
