//! Signing as a domain: DKIM signatures and ARC seals.

mod secret;

use base64::{Engine, engine::general_purpose::STANDARD};
use env::Timestamp;
use message::Field;

use crate::{
    arc::{self, ArcError, ArcResult, ArcVerdict},
    canon::BodyHash,
    digest::{Digest, HeaderSize, SIGNING_CANON},
    dkim::header_data,
    limits::ARC_SETS_MAX,
    results,
};
pub use secret::{KeyError, SigningKey};

/// Fields that are signed where a message has them: what RFC 6376 §5.4.1 names, and what mailing lists
/// tell about themselves.
const SIGNED: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// Fields of which nobody may add another one (RFC 6376 §8.15).
const SEALED: &[&str] = &["From", "Reply-To", "Subject", "Date", "To", "Cc", "Content-Type"];

/// Where lines are folded.
const LINE_CHARS: usize = 74;

/// A key, and where its other half is published.
#[derive(Debug, Clone)]
pub struct DkimKey {
    /// `s=`.
    pub selector: String,
    /// The key.
    pub key: SigningKey,
}

impl DkimKey {
    /// The name that the record of this key of `domain` goes under.
    pub fn record_name(&self, domain: &str) -> String {
        format!("{}._domainkey.{domain}", self.selector)
    }
}

/// Signs for a domain, with every key that it is given: an RSA and an Ed25519 one, say.
#[derive(Debug, Clone)]
pub struct Signer {
    domain: String,
    keys: Vec<DkimKey>,
    lifetime_seconds: Option<u64>,
}

/// Why something was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The message was digested to be judged only.
    #[error("the message was not digested for signing")]
    NotDigested,
    /// The header is larger than is kept.
    #[error("the header is too large")]
    HeaderTooLarge,
    /// There is no author to sign for.
    #[error("the message has no From")]
    NoAuthor,
    /// The signer has no key.
    #[error("there is no key")]
    NoKey,
    /// The key failed.
    #[error("signing failed")]
    Failed,
}

impl Signer {
    /// A signer for a domain, given in A-labels.
    pub fn new(domain: &str, keys: Vec<DkimKey>) -> Self {
        Self { domain: domain.to_owned(), keys, lifetime_seconds: None }
    }

    /// Lets signatures expire so long after they are made (`x=`).
    #[must_use]
    pub fn expiring_after(mut self, seconds: u64) -> Self {
        self.lifetime_seconds = Some(seconds);
        self
    }

    /// `DKIM-Signature` fields, one a key, to go above the message.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, digest: &Digest, at: Timestamp) -> Result<String, SignError> {
        let fields = signable(digest)?;
        let body = body(digest)?;
        if self.keys.is_empty() {
            return Err(SignError::NoKey);
        }
        let names = signed_names(&fields);
        let mut signed = String::new();
        for key in &self.keys {
            let mut text = Folded::new("DKIM-Signature");
            text.tag("v", "1");
            self.common(&mut text, key, at);
            if let Some(lifetime) = self.lifetime_seconds {
                text.tag("x", &(seconds(at).saturating_add(lifetime)).to_string());
            }
            signed.push_str(&finish(text, key, &names, body, &fields)?);
        }
        Ok(signed)
    }

    /// The fields of a new ARC set, to go above the message as it is handed on (RFC 8617 §5.1); `None`
    /// where the chain was broken already, lost sets since it was judged, or is too long, and nothing is to be
    /// added; and where nobody knows whether it is broken, because a seal says either and cannot be taken back.
    ///
    /// `chain` and `results` are what was found of the message when it came; `digest` is of the message as it
    /// leaves. An RSA key is taken, where there is one, because few verify others.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn seal(
        &self,
        digest: &Digest,
        chain: &ArcVerdict,
        hostname: &str,
        results: &[String],
        at: Timestamp,
    ) -> Result<Option<String>, SignError> {
        let fields = signable(digest)?;
        let body = body(digest)?;
        let key = self.keys.iter().find(|key| key.key.is_rsa()).or(self.keys.first());
        let key = key.ok_or(SignError::NoKey)?;
        let number = chain.instances as usize + 1;
        let before = match chain.result {
            ArcResult::TempError | ArcResult::PermError => return Ok(None),
            // RFC 8617 §5.1.2: a seal on a broken chain seals itself alone.
            ArcResult::Fail => Some(Vec::new()),
            ArcResult::None | ArcResult::Pass => arc::existing(&fields),
        };
        let whole = |sets: &Vec<_>| chain.result == ArcResult::Fail || sets.len() + 1 == number;
        let Some(before) = before.filter(whole) else { return Ok(None) };
        if chain.reason == Some(ArcError::SealedAsBroken) || number > ARC_SETS_MAX {
            return Ok(None);
        }
        let instance = format!("i={number}; {hostname}");
        let told = results::field(arc::RESULTS, &instance, results);

        let mut text = Folded::new(arc::SIGNATURE);
        text.tag("i", &number.to_string());
        self.common(&mut text, key, at);
        let signature = finish(text, key, &signed_names(&fields), body, &fields)?;

        let mut text = Folded::new(arc::SEAL);
        text.tag("i", &number.to_string());
        text.tag("a", key.key.algorithm().as_str());
        text.tag("cv", chain.result.as_str());
        text.tag("d", &self.domain);
        text.tag("s", &key.selector);
        text.tag("t", &seconds(at).to_string());
        let unsigned = text.unsigned();
        let own = [told.as_bytes(), signature.as_bytes(), unsigned.as_bytes()];
        let data = arc::sealed_data(before.into_iter().chain([own]));
        let seal = text.signed(&key.key.sign(&data).map_err(|_| SignError::Failed)?);
        Ok(Some([seal, signature, told].concat()))
    }

    fn common(&self, text: &mut Folded, key: &DkimKey, at: Timestamp) {
        text.tag("a", key.key.algorithm().as_str());
        text.tag("c", "relaxed/relaxed");
        text.tag("d", &self.domain);
        text.tag("s", &key.selector);
        text.tag("t", &seconds(at).to_string());
    }
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.unix_seconds()).unwrap_or_default()
}

fn signable(digest: &Digest) -> Result<Vec<Field<'_>>, SignError> {
    if digest.size == HeaderSize::TooLarge {
        return Err(SignError::HeaderTooLarge);
    }
    let fields = digest.fields();
    let author = fields.iter().any(|field| field.is("From"));
    if author { Ok(fields) } else { Err(SignError::NoAuthor) }
}

fn body(digest: &Digest) -> Result<&BodyHash, SignError> {
    let whole = |body: &&BodyHash| body.canon == SIGNING_CANON && body.limit.is_none();
    digest.bodies.hashed().iter().find(whole).ok_or(SignError::NotDigested)
}

/// Names to list, once for each field that is there, and once more where none may be added.
fn signed_names(fields: &[Field<'_>]) -> Vec<String> {
    let mut names = Vec::new();
    for name in SIGNED {
        let there = fields.iter().filter(|field| field.is(name)).count();
        let more = usize::from(SEALED.contains(name));
        // More of one name than a list holds are somebody's flood; the lowest are signed.
        let count = (there + more).min(8);
        names.extend(std::iter::repeat_n(name.to_ascii_lowercase(), count));
    }
    names
}

fn finish(
    mut text: Folded,
    key: &DkimKey,
    names: &[String],
    body: &BodyHash,
    fields: &[Field<'_>],
) -> Result<String, SignError> {
    text.list("h", names);
    text.tag("bh", &STANDARD.encode(body.hash.as_ref()));
    let data = header_data(SIGNING_CANON, names, text.unsigned().as_bytes(), fields);
    let signature = key.key.sign(&data).map_err(|_| SignError::Failed)?;
    Ok(text.signed(&signature))
}

/// A field of tags that is folded as it grows.
struct Folded {
    text: String,
    column: usize,
}

impl Folded {
    fn new(name: &str) -> Self {
        let text = format!("{name}:");
        Self { column: text.len(), text }
    }

    fn word(&mut self, word: &str) {
        if self.column + 1 + word.len() > LINE_CHARS {
            self.text.push_str("\r\n\t");
            self.column = 8;
        } else if !self.text.ends_with('\t') {
            self.text.push(' ');
            self.column += 1;
        }
        self.text.push_str(word);
        self.column += word.len();
    }

    fn tag(&mut self, name: &str, value: &str) {
        self.word(&format!("{name}={value};"));
    }

    fn list(&mut self, name: &str, items: &[String]) {
        for (at, item) in items.iter().enumerate() {
            let begin = if at == 0 { format!("{name}=") } else { String::new() };
            let end = if at + 1 == items.len() { ';' } else { ':' };
            self.word(&format!("{begin}{item}{end}"));
        }
    }

    /// The field as it is signed.
    fn unsigned(&self) -> String {
        format!("{}\r\n\tb=\r\n", self.text)
    }

    fn signed(&self, signature: &[u8]) -> String {
        let encoded = STANDARD.encode(signature);
        let mut text = format!("{}\r\n\tb=", self.text);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE_CHARS - 10));
            text.push_str(line);
            rest = after;
            text.push_str(if rest.is_empty() { "\r\n" } else { "\r\n\t " });
        }
        text
    }
}
