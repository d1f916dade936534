//! Chains of what was judged before us (RFC 8617): whether the seals on them hold.

use std::collections::BTreeSet;

use message::Field;

use crate::{
    canon::{Bodies, Canon},
    dkim::{self, DkimError, Keys, Kind, Signature, field_without_signature},
    domain,
    key::Algorithm,
    limits::{ARC_SEALS_MAX, ARC_SETS_MAX},
    tags::Tags,
};

pub(crate) const RESULTS: &str = "ARC-Authentication-Results";
pub(crate) const SIGNATURE: &str = "ARC-Message-Signature";
pub(crate) const SEAL: &str = "ARC-Seal";

/// What became of a chain (RFC 8617 §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArcResult {
    /// There is none.
    #[default]
    None,
    /// It holds.
    Pass,
    /// It is broken, or says of itself that it is.
    Fail,
    /// A key that it takes could not be had for now.
    ///
    /// RFC 8617 §5.2.1 calls that broken, for good. It is told apart here, so that nobody seals a chain as broken
    /// that whoever gets the message next finds whole.
    TempError,
    /// It has more seals than are verified.
    PermError,
}

impl ArcResult {
    /// As it is written in `Authentication-Results`, and in `cv=`, which has the first three alone.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// Why a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArcError {
    /// A set lacks something, has it twice, or cannot be read.
    #[error("malformed chain")]
    Malformed,
    /// Sets are missing, or there are more than 50.
    #[error("sets are missing")]
    MissingSets,
    /// A seal says that the chain was broken when it was put on.
    #[error("sealed as broken")]
    SealedAsBroken,
    /// The newest signature of the message does not hold.
    #[error("message signature: {0}")]
    Message(DkimError),
    /// A seal does not hold.
    #[error("seal: {0}")]
    Seal(DkimError),
    /// There are more seals than are verified.
    #[error("too many seals")]
    TooManySeals,
}

impl ArcError {
    fn result(self) -> ArcResult {
        match self {
            Self::Message(DkimError::KeyUnavailable) | Self::Seal(DkimError::KeyUnavailable) => {
                ArcResult::TempError
            }
            Self::TooManySeals => ArcResult::PermError,
            Self::Malformed
            | Self::MissingSets
            | Self::SealedAsBroken
            | Self::Message(_)
            | Self::Seal(_) => ArcResult::Fail,
        }
    }
}

/// A chain and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArcVerdict {
    /// What became of it.
    pub result: ArcResult,
    /// Why it did not pass.
    pub reason: Option<ArcError>,
    /// Who sealed, the oldest first. Believe it only of a chain that passes, and only where the sealer
    /// is believed; of one that could not be checked for now it is who claims to have sealed.
    pub sets: Vec<ArcSet>,
    /// The highest number that a field of the chain bears, whether the chain holds or not.
    pub instances: u32,
}

/// What one sealer vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArcSet {
    /// `d=` of the seal.
    pub domain: String,
    /// `s=` of the seal.
    pub selector: String,
    /// What the sealer's `ARC-Authentication-Results` says, behind its number.
    pub results: String,
}

struct Set<'f, 'a> {
    results: &'f Field<'a>,
    signature: &'f Field<'a>,
    seal: &'f Field<'a>,
}

struct Seal {
    algorithm: Algorithm,
    signature: Vec<u8>,
    domain: String,
    selector: String,
    says: ArcResult,
}

impl Seal {
    fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

/// The number of a set that a field of the chain belongs to.
fn instance(field: &Field<'_>) -> Option<usize> {
    let number = if field.is(RESULTS) {
        let value = std::str::from_utf8(field.value).ok()?;
        let (first, _) = value.split_once(';')?;
        let (name, number) = first.split_once('=')?;
        (name.trim_ascii() == "i").then(|| number.trim_ascii().to_owned())?
    } else {
        Tags::parse(field.value).ok()?.get("i")?.to_owned()
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    (digits && number.len() <= 3).then(|| number.parse().ok())?
}

fn of<'f, 'a>(fields: &'f [Field<'a>], name: &'static str) -> impl Iterator<Item = &'f Field<'a>> {
    fields.iter().filter(move |field| field.is(name))
}

/// The signature of the newest set.
pub(crate) fn newest_signature<'f, 'a>(fields: &'f [Field<'a>]) -> Option<&'f Field<'a>> {
    of(fields, SIGNATURE).max_by_key(|field| instance(field))
}

/// The highest number of any field of the chain.
fn instances(fields: &[Field<'_>]) -> u32 {
    let names = [RESULTS, SIGNATURE, SEAL];
    let numbers = names.iter().flat_map(|name| of(fields, name)).filter_map(instance);
    u32::try_from(numbers.max().unwrap_or(0)).unwrap_or(u32::MAX)
}

/// The whole sets that are there, in the form in which they are sealed; `None` where the chain cannot be
/// gone on with.
pub(crate) fn existing<'a>(fields: &[Field<'a>]) -> Option<Vec<[&'a [u8]; 3]>> {
    let sets = sets(fields).ok()?;
    Some(sets.iter().map(|set| [set.results.raw, set.signature.raw, set.seal.raw]).collect())
}

/// A chain while it is judged: read, then its newest signature checked, then its seals, each step where the
/// one before went well.
pub(crate) struct Chain<'f, 'a> {
    instances: u32,
    sets: Vec<Set<'f, 'a>>,
    seals: Vec<Seal>,
    /// The newest signature of the message, or why the chain is not to be believed; `None` where
    /// there is no chain.
    newest: Option<Result<Signature, ArcError>>,
}

impl<'f, 'a> Chain<'f, 'a> {
    pub(crate) fn read(fields: &'f [Field<'a>]) -> Self {
        let mut chain = Self {
            instances: instances(fields),
            sets: Vec::new(),
            seals: Vec::new(),
            newest: None,
        };
        match sets(fields) {
            Ok(sets) => chain.sets = sets,
            Err(error) => chain.newest = Some(Err(error)),
        }
        if let Some(set) = chain.sets.last() {
            let newest = seals(&chain.sets).and_then(|seals| {
                chain.seals = seals;
                Signature::parse(Kind::Arc, set.signature.value).map_err(ArcError::Message)
            });
            chain.newest = Some(newest);
        }
        chain
    }

    /// Where the key of the newest signature is.
    pub(crate) fn message_key(&self) -> Option<String> {
        self.newest.as_ref()?.as_ref().ok().map(Signature::key_name)
    }

    /// Checks the newest signature; `at` is the time in Unix seconds.
    pub(crate) fn check_message(
        &mut self,
        fields: &[Field<'_>],
        bodies: &Bodies,
        keys: &Keys,
        at: u64,
    ) {
        let (Some(set), Some(Ok(signature))) = (self.sets.last(), &self.newest) else { return };
        if let Err(error) = dkim::verify(signature, set.signature, fields, bodies, keys, at) {
            self.newest = Some(Err(ArcError::Message(error)));
        }
    }

    /// Where the keys of the seals are; none where they cannot save the chain.
    pub(crate) fn seal_keys(&self) -> BTreeSet<String> {
        match self.newest {
            Some(Ok(_)) => self.seals.iter().map(Seal::key_name).collect(),
            Some(Err(_)) | None => BTreeSet::new(),
        }
    }

    /// What became of it.
    pub(crate) fn verdict(self, keys: &Keys) -> ArcVerdict {
        let verdict = ArcVerdict { instances: self.instances, ..ArcVerdict::default() };
        let Some(newest) = &self.newest else { return verdict };
        let error = match newest {
            Ok(_) => self.check_seals(keys).err(),
            Err(error) => Some(*error),
        };
        let result = error.map_or(ArcResult::Pass, ArcError::result);
        let sets = match result {
            ArcResult::Pass | ArcResult::TempError => self.told(),
            ArcResult::None | ArcResult::Fail | ArcResult::PermError => Vec::new(),
        };
        ArcVerdict { result, reason: error, sets, ..verdict }
    }

    /// The newest seal first, which signs most: a chain that somebody made up costs one signature.
    fn check_seals(&self, keys: &Keys) -> Result<(), ArcError> {
        let mut checked = Ok(());
        for (place, seal) in self.seals.iter().enumerate().rev() {
            let key = match keys.get(&seal.key_name()) {
                Ok(key) => key,
                // Another one may be wrong for good.
                Err(DkimError::KeyUnavailable) => {
                    checked = Err(ArcError::Seal(DkimError::KeyUnavailable));
                    continue;
                }
                Err(error) => return Err(ArcError::Seal(error)),
            };
            let before = self.sets[..=place].iter();
            let data =
                sealed_data(before.map(|set| [set.results.raw, set.signature.raw, set.seal.raw]));
            key.verify(seal.algorithm, &data, &seal.signature).map_err(ArcError::Seal)?;
        }
        checked
    }

    fn told(self) -> Vec<ArcSet> {
        let told = self.seals.into_iter().zip(&self.sets).map(|(seal, set)| {
            let results = message::unfold(set.results.value);
            let results = results.split_once(';').map_or("", |(_, results)| results.trim_ascii());
            ArcSet { domain: seal.domain, selector: seal.selector, results: results.to_owned() }
        });
        told.collect()
    }
}

/// The seals of whole sets, each saying what the chain was when it was put on.
fn seals(sets: &[Set<'_, '_>]) -> Result<Vec<Seal>, ArcError> {
    let mut seals = Vec::with_capacity(sets.len());
    for (place, set) in sets.iter().enumerate() {
        let seal = parse_seal(set.seal.value).map_err(|_| ArcError::Malformed)?;
        let expected = if place == 0 { ArcResult::None } else { ArcResult::Pass };
        match seal.says {
            says if says == expected => {}
            ArcResult::Fail => return Err(ArcError::SealedAsBroken),
            _ => return Err(ArcError::Malformed),
        }
        seals.push(seal);
    }
    if seals.len() > ARC_SEALS_MAX { Err(ArcError::TooManySeals) } else { Ok(seals) }
}

/// The chain's sets, each whole and none missing (RFC 8617 §5.2, steps 1 to 3).
fn sets<'f, 'a>(fields: &'f [Field<'a>]) -> Result<Vec<Set<'f, 'a>>, ArcError> {
    let numbered = |name: &'static str| -> Result<Vec<&'f Field<'a>>, ArcError> {
        let mut found: Vec<(usize, &Field<'_>)> = Vec::new();
        for field in of(fields, name) {
            if found.len() > ARC_SETS_MAX {
                return Err(ArcError::MissingSets);
            }
            found.push((instance(field).ok_or(ArcError::Malformed)?, field));
        }
        found.sort_by_key(|(number, _)| *number);
        let counted = found.iter().zip(1..).all(|((number, _), expected)| *number == expected);
        if !counted || found.len() > ARC_SETS_MAX {
            return Err(ArcError::MissingSets);
        }
        Ok(found.into_iter().map(|(_, field)| field).collect())
    };
    let (results, signatures, seals) = (numbered(RESULTS)?, numbered(SIGNATURE)?, numbered(SEAL)?);
    if results.len() != signatures.len() || signatures.len() != seals.len() {
        return Err(ArcError::Malformed);
    }
    let sets = results.into_iter().zip(signatures).zip(seals);
    Ok(sets.map(|((results, signature), seal)| Set { results, signature, seal }).collect())
}

/// What a seal signs (RFC 8617 §5.1.1): the sets in their order, the last seal without signature.
pub(crate) fn sealed_data<'a>(sets: impl Iterator<Item = [&'a [u8]; 3]>) -> Vec<u8> {
    let mut data = Vec::new();
    let mut last = None;
    for [results, signature, seal] in sets {
        if let Some(seal) = last.replace(seal) {
            Canon::Relaxed.field(seal, &mut data);
        }
        Canon::Relaxed.field(results, &mut data);
        Canon::Relaxed.field(signature, &mut data);
    }
    if let Some(seal) = last {
        Canon::Relaxed.field(&field_without_signature(seal), &mut data);
    }
    data.truncate(data.len().saturating_sub(2));
    data
}

fn parse_seal(value: &[u8]) -> Result<Seal, DkimError> {
    use DkimError::Malformed;
    let tags = Tags::parse(value).map_err(|_| Malformed)?;
    // RFC 8617 §4.1.3: what it signs is not its to choose.
    if tags.get("h").is_some() || tags.get("bh").is_some() || tags.get("c").is_some() {
        return Err(Malformed);
    }
    let needed = |name: &str| tags.compact(name).filter(|it| !it.is_empty()).ok_or(Malformed);
    if tags.get("t").is_some_and(|time| !time.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Malformed);
    }
    let says = match needed("cv")?.to_ascii_lowercase().as_str() {
        "none" => ArcResult::None,
        "pass" => ArcResult::Pass,
        "fail" => ArcResult::Fail,
        _ => return Err(Malformed),
    };
    use base64::{Engine, engine::general_purpose::STANDARD};
    Ok(Seal {
        algorithm: Algorithm::parse(&needed("a")?)?,
        signature: STANDARD.decode(needed("b")?).map_err(|_| Malformed)?,
        domain: domain::ascii(&needed("d")?).ok_or(Malformed)?,
        selector: domain::ascii(&needed("s")?).ok_or(Malformed)?,
        says,
    })
}
