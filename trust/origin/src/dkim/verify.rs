//! Whether a signature is right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dns::{LookupError, Resolver};
use env::Env;
use futures_util::future::join_all;
use message::Field;

use crate::{
    canon::{Bodies, Canon},
    dkim::{DkimError, Signature, field_without_signature},
    key::{Identity, PublicKey},
    limits::KEY_TIME_MAX,
};

/// Keys of one message, each looked up once.
pub(crate) struct Keys {
    known: BTreeMap<String, Result<Arc<PublicKey>, DkimError>>,
}

impl Keys {
    /// Looks all of them up at once, so that none has to wait for another's name servers: whoever adds
    /// signatures must not be able to take the time away from those of others.
    pub(crate) async fn fetch(env: &Env, resolver: &Resolver, names: BTreeSet<String>) -> Self {
        let mut keys = Self { known: BTreeMap::new() };
        keys.fetch_also(env, resolver, names).await;
        keys
    }

    /// The same of those that are not known yet.
    pub(crate) async fn fetch_also(
        &mut self,
        env: &Env,
        resolver: &Resolver,
        names: BTreeSet<String>,
    ) {
        let unknown = names.into_iter().filter(|name| !self.known.contains_key(name));
        let fetching = unknown.map(|name| async move {
            let looking = look(resolver, &name);
            let found = env.timeout(KEY_TIME_MAX, looking).await;
            (name, found.unwrap_or(Err(DkimError::KeyUnavailable)))
        });
        let found = join_all(fetching).await;
        self.known.extend(found);
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<PublicKey>, DkimError> {
        self.known.get(name).cloned().unwrap_or(Err(DkimError::KeyUnavailable))
    }
}

async fn look(resolver: &Resolver, name: &str) -> Result<Arc<PublicKey>, DkimError> {
    match resolver.txt(name).await {
        Ok(answer) => PublicKey::find(&answer.records).map(Arc::new),
        Err(LookupError::NoName { .. } | LookupError::NoRecords { .. }) => Err(DkimError::NoKey),
        Err(LookupError::BadName) => Err(DkimError::Malformed),
        Err(LookupError::Temporary(_) | LookupError::Bogus) => Err(DkimError::KeyUnavailable),
    }
}

/// Checks a signature that stands in `field`; `at` is the time in Unix seconds.
pub(crate) fn verify(
    signature: &Signature,
    field: &Field<'_>,
    fields: &[Field<'_>],
    bodies: &Bodies,
    keys: &Keys,
    at: u64,
) -> Result<Arc<PublicKey>, DkimError> {
    if signature.expires.is_some_and(|expires| expires < at) {
        return Err(DkimError::Expired);
    }
    let coverage = coverage(signature, bodies)?;
    let key = keys.get(&signature.key_name())?;
    if key.identity == Identity::SameDomain
        && !signature.identity.is_empty()
        && !signature.identity.to_ascii_lowercase().ends_with(&format!("@{}", signature.domain))
    {
        return Err(DkimError::IdentityMismatch);
    }
    let own = field_without_signature(field.raw);
    let data = header_data(signature.header_canon, &signature.fields, &own, fields);
    key.verify(signature.algorithm, &data, &signature.signature)?;
    match coverage {
        Coverage::Whole => Ok(key),
        Coverage::Part => Err(DkimError::BodyPartlySigned),
    }
}

/// How much of the body is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// All of it.
    Whole,
    /// More follows.
    Part,
}

/// Compares the body with what a signature says of it.
pub(crate) fn coverage(signature: &Signature, bodies: &Bodies) -> Result<Coverage, DkimError> {
    let bodies = match bodies {
        Bodies::Hashed(bodies) => bodies,
        Bodies::Presumed => return Ok(Coverage::Whole),
    };
    let wanted = (signature.body_canon, signature.length);
    let body = bodies.iter().find(|body| (body.canon, body.limit) == wanted);
    let body = body.ok_or(DkimError::BodyChanged)?;
    if body.hash.as_ref() != signature.body_hash {
        return Err(DkimError::BodyChanged);
    }
    match signature.length {
        Some(length) if length > body.length => Err(DkimError::BodyChanged),
        Some(length) if length < body.length => Ok(Coverage::Part),
        _ => Ok(Coverage::Whole),
    }
}

/// The bytes that a signature signs (RFC 6376 §3.7): the fields it lists, those of one name from the
/// bottom up (§5.4.2), then itself without what makes it one.
pub(crate) fn header_data(
    canon: Canon,
    names: &[String],
    own: &[u8],
    fields: &[Field<'_>],
) -> Vec<u8> {
    let mut data = Vec::new();
    let mut taken: Vec<(&str, usize)> = Vec::new();
    for name in names {
        let known = taken.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
        let place = known.unwrap_or_else(|| {
            taken.push((name, fields.len()));
            taken.len() - 1
        });
        let below = &mut taken[place].1;
        let found = fields[..*below].iter().rposition(|field| field.is(name));
        // A field that is not there signs that it is not there.
        *below = found.unwrap_or(0);
        if let Some(found) = found {
            canon.field(fields[found].raw, &mut data);
        }
    }
    canon.field(own, &mut data);
    if data.ends_with(b"\r\n") {
        data.truncate(data.len() - 2);
    }
    data
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use dns::Zone;
    use env::Env;
    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::{Digester, Purpose, SigningKey, dkim::Kind};

    /// A message of which the first `length` bytes of the body are signed.
    async fn signed(length: usize, body: &str) -> Result<(), DkimError> {
        let key = SigningKey::generate_ed25519(&Env::system());
        let zone = Zone::new();
        zone.txt("s._domainkey.example.org", key.record());
        let hash = STANDARD.encode(digest(&SHA256, &body.as_bytes()[..length.min(body.len())]));
        let from = "From: a@example.org\r\n";
        let unsigned = format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; d=example.org; s=s; h=from; l={length}; bh={hash}; b="
        );
        let block = from.as_bytes();
        let fields: Vec<_> = message::Fields::new(block).collect();
        let own = format!("{unsigned}\r\n");
        let data = header_data(Canon::Simple, &["from".to_owned()], own.as_bytes(), &fields);
        let signature = STANDARD.encode(key.sign(&data).unwrap());
        let message = format!("{unsigned}{signature}\r\n{from}\r\n{body}");
        let digested = Digester::whole(Purpose::Judge, message.as_bytes());
        let fields = digested.fields();
        let signature = Signature::parse(Kind::Dkim, fields[0].value)?;
        let names = [signature.key_name()].into();
        let keys = Keys::fetch(&Env::system(), &Resolver::fixed(zone), names).await;
        verify(&signature, &fields[0], &fields, &digested.bodies, &keys, 0).map(|_| ())
    }

    #[tokio::test]
    async fn what_follows_a_signed_part_is_told() {
        let body = "signed\r\nadded\r\n";
        assert_eq!(signed(body.len(), body).await, Ok(()));
        assert_eq!(signed(8, body).await, Err(DkimError::BodyPartlySigned));
        assert_eq!(signed(0, body).await, Err(DkimError::BodyPartlySigned));
        assert_eq!(signed(100, body).await, Err(DkimError::BodyChanged));
    }
}
