//! Whether an address' name leads back to it (RFC 8601 §2.7.3, §3).

use std::net::IpAddr;

use dns::{LookupError, Resolver};

use crate::limits::IPREV_NAMES_MAX;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IprevResult {
    /// A name leads back.
    Pass,
    /// There are names, and none leads back.
    Fail,
    /// It could not be found out.
    #[default]
    TempError,
    /// There is no name.
    PermError,
}

impl IprevResult {
    /// As it is written in `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What became of it, and the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IprevVerdict {
    /// What became of it.
    pub result: IprevResult,
    /// The name that leads back.
    pub name: Option<String>,
}

pub(crate) async fn check(resolver: &Resolver, peer: IpAddr) -> IprevVerdict {
    let failed = |result| IprevVerdict { result, name: None };
    let names = match resolver.ptr(peer).await {
        Ok(answer) => answer.records,
        Err(error) if error.is_denial() => return failed(IprevResult::PermError),
        Err(_) => return failed(IprevResult::TempError),
    };
    let mut result = IprevResult::Fail;
    for name in names.into_iter().take(IPREV_NAMES_MAX) {
        match resolver.addresses_like(&name, peer).await {
            Ok(answer) if answer.records.contains(&peer) => {
                return IprevVerdict { result: IprevResult::Pass, name: Some(name) };
            }
            Err(LookupError::Temporary(_) | LookupError::Bogus) => result = IprevResult::TempError,
            Ok(_) | Err(_) => {}
        }
    }
    failed(result)
}
