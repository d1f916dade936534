//! From replies to an answer: aliases are followed, and what is proven of each step counts.

use std::{future::Future, time::Duration};

use hickory_net::proto::{
    dnssec::Proof,
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};

use crate::{
    answer::{Answer, LookupError, Security, Unavailable},
    limits::{ALIASES_MAX, RECORDS_MAX, TTL_MAX},
    name,
};

/// What the servers say about one name and kind. Each record has its proof.
pub(crate) struct Reply {
    pub(crate) records: Vec<Record>,
    pub(crate) code: ResponseCode,
    /// What is proven of there being nothing.
    pub(crate) denial: Security,
}

/// Asks for `kind` at `name`, and at what its aliases lead to.
pub(crate) async fn follow<F>(
    name: Name,
    kind: RecordType,
    ask: impl Fn(Name) -> F,
) -> Result<Answer<Vec<RData>>, LookupError>
where
    F: Future<Output = Result<Reply, LookupError>>,
{
    let mut steps = Steps {
        name,
        security: Security::Secure,
        first: None,
        ttl: u32::try_from(TTL_MAX.as_secs()).unwrap_or(u32::MAX),
        aliases: 0,
    };
    loop {
        let reply = ask(steps.name.clone()).await?;
        let before = steps.aliases;
        while let Some(target) = steps.take_alias(&reply, kind)? {
            steps.name = target;
        }
        if let Some(records) = steps.take_records(&reply, kind)? {
            return Ok(steps.answer(records));
        }
        // What an alias leads to is asked for itself, so that its denial is proven by its own zone.
        if steps.aliases == before {
            let security = steps.security.min(reply.denial);
            return Err(match reply.code {
                ResponseCode::NXDomain => LookupError::NoName { security },
                _ => LookupError::NoRecords { security },
            });
        }
    }
}

struct Steps {
    name: Name,
    security: Security,
    /// Of the first step.
    first: Option<Security>,
    ttl: u32,
    aliases: usize,
}

impl Steps {
    /// Where the name that we are at leads to by an alias.
    fn take_alias(&mut self, reply: &Reply, kind: RecordType) -> Result<Option<Name>, LookupError> {
        if kind == RecordType::CNAME {
            return Ok(None);
        }
        let alias = |record: &&Record| record.name == self.name && alias_of(record).is_some();
        let Some(record) = reply.records.iter().find(alias) else { return Ok(None) };
        self.count(record)?;
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            return Err(LookupError::Temporary(Unavailable::TooFar));
        }
        Ok(alias_of(record).cloned())
    }

    fn take_records(
        &mut self,
        reply: &Reply,
        kind: RecordType,
    ) -> Result<Option<Vec<RData>>, LookupError> {
        let ours = |record: &&Record| record.name == self.name && record.record_type() == kind;
        let records: Vec<&Record> = reply.records.iter().filter(ours).take(RECORDS_MAX).collect();
        for record in &records {
            self.count(record)?;
        }
        let data: Vec<_> = records.into_iter().map(|record| record.data.clone()).collect();
        Ok((!data.is_empty()).then_some(data))
    }

    fn count(&mut self, record: &Record) -> Result<(), LookupError> {
        let security = match record.proof {
            Proof::Secure => Security::Secure,
            Proof::Insecure => Security::Insecure,
            Proof::Bogus | Proof::Indeterminate => return Err(LookupError::Bogus),
        };
        self.first.get_or_insert(security);
        self.security = self.security.min(security);
        self.ttl = self.ttl.min(record.ttl);
        Ok(())
    }

    fn answer(self, records: Vec<RData>) -> Answer<Vec<RData>> {
        Answer {
            records,
            security: self.security,
            canonical: name::text(&self.name),
            alias_security: self.first.unwrap_or_default(),
            ttl: Duration::from_secs(u64::from(self.ttl)),
        }
    }
}

pub(crate) fn alias_of(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    }
}
