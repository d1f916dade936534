//! P4: counters and quota equal the fold of the state, in every account.

use env::BoxFuture;
use kv::Transaction;

use crate::{Check, Property, Violation, World};

/// Accounts of a world are some dozens.
const ACCOUNTS_MAX: usize = 10_000;

pub(super) struct Counters;

impl Check for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn property(&self) -> Property {
        Property::P4
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let mut found = Vec::new();
            let ids =
                |tx: Transaction| async move { mail::account_ids(&tx, None, ACCOUNTS_MAX).await };
            let ids = match world.db().run(ids).await {
                Ok(ids) => ids,
                Err(error) => return vec![Violation::new(Property::World, error.to_string())],
            };
            for id in ids {
                let look = |tx: Transaction| async move {
                    let found = mail::fold::check_account(&tx, id).await?;
                    let record = mail::account_record(&tx, id).await?;
                    Ok::<_, mail::StoreError>((found, record, mail::usage(&tx, id).await?))
                };
                match world.db().run(look).await {
                    Ok((discrepancies, record, usage)) => {
                        found.extend(discrepancies.into_iter().map(|it| {
                            Violation::new(Property::P4, format!("{}: {}", record.name, it.0))
                        }));
                        let quota = record.quota_bytes;
                        // No workload lowers a quota.
                        if quota != 0 && usage.bytes > quota {
                            let what = format!("{}: {} of {quota} bytes", record.name, usage.bytes);
                            found.push(Violation::new(Property::P4, what));
                        }
                    }
                    Err(error) => {
                        found.push(Violation::new(Property::P4, format!("{id:?}: {error}")))
                    }
                }
            }
            found
        })
    }
}
