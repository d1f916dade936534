//! Secrets that nodes share and that one replaces after a time: the first node that finds the newest too old
//! makes another, and clears what nothing is under any more.

use std::time::Duration;

use env::Timestamp;
use kv::{
    RangeQuery, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;
use zeroize::Zeroizing;

/// Which secrets, and their times.
#[derive(Debug)]
pub(crate) struct Rotating {
    /// What a secret's number follows in its key.
    pub(crate) prefix: Vec<u8>,
    /// What they are called where one is damaged.
    pub(crate) name: &'static str,
    /// How old the newest becomes before there is another.
    pub(crate) rotation: Duration,
    /// How old one becomes.
    pub(crate) kept: Duration,
}

/// A secret as it is stored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct Record {
    /// 32 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    /// When it was made, by its maker's clock, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    made_ms: i64,
}

/// A secret.
pub(crate) struct Secret {
    /// Tells it from others; ascending.
    pub(crate) number: u64,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// When it was made, by its maker's clock.
    pub(crate) made: Timestamp,
}

impl Rotating {
    /// The secrets that anything may be under, oldest first; `fresh` among them where the newest was too
    /// old.
    pub(crate) async fn secrets(
        &self,
        tx: &Transaction,
        now: Timestamp,
        fresh: &Zeroizing<[u8; 32]>,
    ) -> Result<Vec<Secret>, StoreError> {
        let mut secrets: Vec<Secret> = Vec::new();
        for row in tx.range(RangeQuery::prefix(&self.prefix)).collect().await? {
            let number = row.key.get(self.prefix.len()..).unwrap_or_default();
            let (number,): (u64,) = tuple::unpack(number)
                .map_err(|_| StoreError::damaged(self.name, "a key without its number"))?;
            let record = Record::decode(&row.value[..])
                .map_err(|error| StoreError::damaged(self.name, error))?;
            let made = Timestamp::from_unix_ms(record.made_ms);
            if age(now, made) > self.kept {
                tx.clear(&row.key);
            } else {
                secrets.push(Secret { number, bytes: Zeroizing::new(record.secret), made });
            }
        }
        let newest = secrets.last().map(|secret| (secret.number, secret.made));
        if newest.is_none_or(|(_, made)| age(now, made) >= self.rotation) {
            // By the clock, so that a number is not used again once all secrets have gone.
            let number = newest.map_or(0, |(number, _)| number + 1);
            let number = number.max(u64::try_from(now.unix_ms()).unwrap_or(0));
            let record = Record { secret: fresh.to_vec(), made_ms: now.unix_ms() };
            let value = Zeroizing::new(record.encode_to_vec());
            tx.set(&[&self.prefix[..], &pack(&(number,))].concat(), &value);
            secrets.push(Secret { number, bytes: Zeroizing::new(fresh.to_vec()), made: now });
        }
        Ok(secrets)
    }
}

/// Time from `made` to `now`; zero where `made` is in the future.
pub fn age(now: Timestamp, made: Timestamp) -> Duration {
    let ms = now.unix_ms().saturating_sub(made.unix_ms());
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
