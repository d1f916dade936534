//! Dynamic updates (RFC 2136) of a primary server's zone, signed by TSIG with HMAC-SHA-256 (RFC 8945).
//!
//! An answer counts as a success only where it is signed, too. Updates go over TCP, so that size does
//! not matter and nobody answers in the server's place. Adding what is there and removing what is not are
//! successes, so a lost answer is made good by asking again.

use std::{io, net::SocketAddr, time::Duration};

use env::Env;
use hickory_net::proto::{
    op::{Message, ResponseCode, update_message},
    rr::{
        RData, Record, TSigner,
        rdata::{TXT, tsig::TsigAlgorithm},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    limits::{TEXT_BYTES_MAX, UPDATE_TIME_MAX},
    name,
};

/// Bytes of one string of a text (RFC 1035 §3.3.14).
const STRING_BYTES_MAX: usize = 255;

/// RFC 8945 §10: how far the two clocks may be apart, in seconds.
const FUDGE_SECONDS: u16 = 300;

/// Changes texts in the zones of one server.
pub struct Updater {
    env: Env,
    server: SocketAddr,
    signer: TSigner,
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updater").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why a zone was not changed, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A name is none, is not within the zone, or the text is too long.
    #[error("not a name of the zone, or too long a text")]
    NotInZone,
    /// The key cannot be used.
    #[error("the key cannot be used")]
    BadKey,
    /// Nobody answers there.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the server does not answer in time")]
    TimedOut,
    /// The answer is none, or not signed by the key.
    #[error("the answer cannot be read, or is not signed")]
    Garbled,
    /// The server does not do it.
    #[error("the server refuses: {0}")]
    Refused(String),
}

/// What is done to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

impl Updater {
    /// Updates that server, under that key: its name, and the bytes of its secret.
    ///
    /// # Errors
    /// [`UpdateError::BadKey`].
    pub fn new(
        env: &Env,
        server: SocketAddr,
        key_name: &str,
        secret: Vec<u8>,
    ) -> Result<Self, UpdateError> {
        let name = name::parse(key_name).map_err(|_| UpdateError::BadKey)?;
        if secret.is_empty() {
            return Err(UpdateError::BadKey);
        }
        let signer = TSigner::new(secret, TsigAlgorithm::HmacSha256, name, FUDGE_SECONDS);
        let signer = signer.map_err(|_| UpdateError::BadKey)?;
        Ok(Self { env: env.clone(), server, signer })
    }

    /// Adds a text to a name.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn add_txt(
        &self,
        zone: &str,
        name: &str,
        ttl: Duration,
        text: &[u8],
    ) -> Result<(), UpdateError> {
        self.update(Change::Add, zone, name, ttl, text).await
    }

    /// Removes a text from a name; other texts stay.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn remove_txt(&self, zone: &str, name: &str, text: &[u8]) -> Result<(), UpdateError> {
        self.update(Change::Remove, zone, name, Duration::ZERO, text).await
    }

    async fn update(
        &self,
        change: Change,
        zone: &str,
        name: &str,
        ttl: Duration,
        text: &[u8],
    ) -> Result<(), UpdateError> {
        let zone = name::parse(zone).map_err(|_| UpdateError::NotInZone)?;
        let name = name::parse(name).map_err(|_| UpdateError::NotInZone)?;
        if !zone.zone_of(&name) || text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(UpdateError::NotInZone);
        }
        let data = RData::TXT(TXT::from_bytes(text.chunks(STRING_BYTES_MAX).collect()));
        let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        let record = Record::from_rdata(name, ttl, data);
        let mut message = match change {
            // RFC 2136 §2.5.1, whatever the name has.
            Change::Add => update_message::append(record.into(), zone, false, false),
            // RFC 2136 §2.5.4.
            Change::Remove => update_message::delete_by_rdata(record.into(), zone, false),
        };
        message.metadata.id = u16::from_le_bytes(self.env.random_array());
        self.env
            .timeout(UPDATE_TIME_MAX, self.exchange(message))
            .await
            .map_err(|_| UpdateError::TimedOut)?
    }

    async fn exchange(&self, mut message: Message) -> Result<(), UpdateError> {
        let unreachable = |error: io::Error| UpdateError::Unreachable(error.to_string());
        let id = message.id;
        let now = u64::try_from(self.env.wall().unix_seconds()).unwrap_or_default();
        let verifier = message.finalize(&self.signer, now).map_err(|_| UpdateError::BadKey)?;
        let mut verifier = verifier.ok_or(UpdateError::BadKey)?;
        let bytes = message.to_vec().map_err(|_| UpdateError::NotInZone)?;
        let length = u16::try_from(bytes.len()).map_err(|_| UpdateError::NotInZone)?;
        let mut stream = self.env.connect(self.server).await.map_err(unreachable)?;
        // RFC 7766 §8: length and message in one write.
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        stream.write_all(&framed).await.map_err(unreachable)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).await.map_err(unreachable)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).await.map_err(unreachable)?;
        let read = Message::from_vec(&answer).map_err(|_| UpdateError::Garbled)?;
        if read.id != id {
            return Err(UpdateError::Garbled);
        }
        // RFC 8945 §5.3.2: an error need not be signed, and nothing hangs on it.
        if read.response_code != ResponseCode::NoError {
            return Err(UpdateError::Refused(read.response_code.to_string()));
        }
        verifier.verify(&answer).map_err(|_| UpdateError::Garbled)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
