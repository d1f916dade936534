//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side: messages and proofs, without IO.
//!
//! Standards: RFC 5802, RFC 7677.
//!
//! Invariant: the message that was proved is the octets that came, never a rewriting of them.

use base64::{Engine, engine::general_purpose::STANDARD};
use mail::keys::account::ScramCredential;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AuthError, ChannelBinding, credential::hmac_sha256, limits};

/// Which of the two is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    Plus,
}

impl Mechanism {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "SCRAM-SHA-256",
            Self::Plus => "SCRAM-SHA-256-PLUS",
        }
    }
}

/// What the client says about channel binding (RFC 5802 §7, `gs2-cbind-flag`).
#[derive(Debug, Clone, PartialEq, Eq)]
enum BindingFlag {
    /// `n`: the client cannot.
    Unsupported,
    /// `y`: the client can, and believes that the server cannot.
    NotOffered,
    /// `p=`: the client does.
    Used(String),
}

/// `client-first-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFirst {
    flag: BindingFlag,
    /// Whom the client wants to act as.
    pub(super) authorize_as: Option<String>,
    /// The name to log in with.
    pub(super) name: String,
    nonce: String,
    /// With its last comma.
    gs2_header: String,
    bare: String,
}

impl ClientFirst {
    /// RFC 5802 §7.
    pub(super) fn parse(message: &[u8]) -> Result<Self, AuthError> {
        let text = std::str::from_utf8(message).map_err(|_| malformed("not UTF-8"))?;
        let (flag, rest) = text.split_once(',').ok_or(malformed("no gs2 header"))?;
        let (authorize_as, bare) = rest.split_once(',').ok_or(malformed("no gs2 header"))?;
        let gs2_header = text[..text.len() - bare.len()].to_owned();
        let flag = match flag {
            "n" => BindingFlag::Unsupported,
            "y" => BindingFlag::NotOffered,
            _ => {
                let name = flag.strip_prefix("p=").ok_or(malformed("bad channel binding flag"))?;
                BindingFlag::Used(name.to_owned())
            }
        };
        let authorize_as = match authorize_as {
            "" => None,
            _ => Some(sasl_name(
                authorize_as.strip_prefix("a=").ok_or(malformed("bad authorization name"))?,
            )?),
        };
        if bare.starts_with("m=") {
            return Err(malformed("extensions are not supported"));
        }
        let mut attributes = bare.split(',');
        let name = attribute(&mut attributes, "n=")?;
        let nonce = attribute(&mut attributes, "r=")?;
        if nonce.len() > limits::CLIENT_NONCE_BYTES_MAX || !is_nonce(nonce) {
            return Err(malformed("bad nonce"));
        }
        Ok(Self {
            flag,
            authorize_as,
            name: sasl_name(name)?,
            nonce: nonce.to_owned(),
            gs2_header,
            bare: bare.to_owned(),
        })
    }

    /// What the client must repeat in `c=`: its header, and the data of the binding it uses.
    pub(super) fn binding_input(
        &self,
        mechanism: Mechanism,
        channel: &ChannelBinding,
    ) -> Result<Vec<u8>, AuthError> {
        let mut input = self.gs2_header.as_bytes().to_vec();
        match (&self.flag, mechanism) {
            (BindingFlag::Used(name), Mechanism::Plus) => {
                input.extend_from_slice(channel.data(name).ok_or(AuthError::ChannelBinding)?);
            }
            // RFC 5802 §6: the client did not see what this server offers, so somebody between
            // has taken it out of the list.
            (BindingFlag::NotOffered, Mechanism::Plain) if channel.is_available() => {
                return Err(AuthError::ChannelBinding);
            }
            (BindingFlag::Unsupported | BindingFlag::NotOffered, Mechanism::Plain) => {}
            (BindingFlag::Used(_), Mechanism::Plain) | (_, Mechanism::Plus) => {
                return Err(malformed("the channel binding flag does not fit the mechanism"));
            }
        }
        Ok(input)
    }
}

/// Why a proof was not accepted, in the words of RFC 5802 §7 (`server-error-value`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    Nonce,
    Binding,
    Proof,
}

impl Refusal {
    /// `server-final-message`.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Malformed => "e=invalid-encoding",
            Self::Nonce => "e=other-error",
            Self::Binding => "e=channel-bindings-dont-match",
            Self::Proof => "e=invalid-proof",
        }
    }
}

/// An exchange whose challenge is out.
pub(super) struct Challenge {
    client_first_bare: String,
    server_first: String,
    nonce: String,
    binding_input: Vec<u8>,
    keys: ScramCredential,
}

impl Challenge {
    pub(super) fn new(
        first: &ClientFirst,
        binding_input: Vec<u8>,
        server_nonce: &str,
        keys: ScramCredential,
    ) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = STANDARD.encode(&keys.salt);
        let server_first = format!("r={nonce},s={salt},i={}", keys.iterations);
        Self { client_first_bare: first.bare.clone(), server_first, nonce, binding_input, keys }
    }

    /// `server-first-message`.
    pub(super) fn message(&self) -> &str {
        &self.server_first
    }

    /// The credential that the proof is checked against.
    pub(super) fn keys(&self) -> &ScramCredential {
        &self.keys
    }

    /// Checks `client-final-message`; returns `server-final-message`.
    pub(super) fn verify(&self, message: &[u8]) -> Result<String, Refusal> {
        let text = std::str::from_utf8(message).map_err(|_| Refusal::Malformed)?;
        // The proof is the last attribute, and base64 has no comma.
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Refusal::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(&mut attributes, "c=").map_err(|_| Refusal::Malformed)?;
        let nonce = attribute(&mut attributes, "r=").map_err(|_| Refusal::Malformed)?;
        let binding = STANDARD.decode(binding).map_err(|_| Refusal::Malformed)?;
        let proof = Zeroizing::new(STANDARD.decode(proof).map_err(|_| Refusal::Malformed)?);
        if proof.len() != 32 {
            return Err(Refusal::Malformed);
        }
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(Refusal::Nonce);
        }
        if !bool::from(binding.ct_eq(&self.binding_input)) {
            return Err(Refusal::Binding);
        }
        let auth_message =
            format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = Zeroizing::new(hmac_sha256(&self.keys.stored_key, auth_message.as_bytes()));
        let client_key: Zeroizing<Vec<u8>> =
            Zeroizing::new(proof.iter().zip(signature.iter()).map(|(p, s)| p ^ s).collect());
        let stored_key = Sha256::digest(&*client_key);
        if !bool::from(stored_key.as_slice().ct_eq(&self.keys.stored_key)) {
            return Err(Refusal::Proof);
        }
        let signature = hmac_sha256(&self.keys.server_key, auth_message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// The credential of a name that has none: the same salt each time, and keys that nobody knows a
/// password for.
pub(super) fn made_up_keys(key: &[u8; 32], name: &str) -> ScramCredential {
    let make = |purpose: &str| {
        hmac_sha256(&hmac_sha256(key, purpose.as_bytes()), name.as_bytes()).to_vec()
    };
    let mut salt = make("salt");
    salt.truncate(limits::SALT_BYTES);
    ScramCredential {
        salt,
        iterations: limits::SCRAM_ITERATIONS,
        stored_key: make("stored key"),
        server_key: make("server key"),
    }
}

fn attribute<'a>(
    attributes: &mut std::str::Split<'a, char>,
    name: &str,
) -> Result<&'a str, AuthError> {
    let found = attributes.next().and_then(|attribute| attribute.strip_prefix(name));
    found.ok_or(malformed("an attribute is missing"))
}

/// RFC 5802 §7 `saslname`: `=2C` is a comma, `=3D` an equals sign, and no other `=` stands.
fn sasl_name(text: &str) -> Result<String, AuthError> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else if let Some(rest) = part.strip_prefix("3D") {
            ('=', rest)
        } else {
            return Err(malformed("bad name"));
        };
        name.push(character);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains('\0') {
        return Err(malformed("bad name"));
    }
    Ok(name)
}

/// RFC 5802 §7: printable ASCII without the comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

const fn malformed(what: &'static str) -> AuthError {
    AuthError::Malformed(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::credential::scram_keys;

    /// RFC 7677 §3.
    #[test]
    fn the_rfc_example() {
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.name, "user");
        let input = first.binding_input(Mechanism::Plain, &ChannelBinding::None).unwrap();
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = scram_keys(b"pencil", &salt, 4096);
        let challenge = Challenge::new(&first, input, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", keys);
        assert_eq!(
            challenge.message(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let check = |message: String, expected: Result<&str, Refusal>| {
            assert_eq!(challenge.verify(message.as_bytes()), expected.map(str::to_owned));
        };
        check(last.to_owned(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        check(last.replace("p=dHzb", "p=dHza"), Err(Refusal::Proof));
        check(last.replace("$k0", "$k1"), Err(Refusal::Nonce));
        check(last.replace("r=rOpr", "r=rOp"), Err(Refusal::Nonce));
        check(last.replace("biws", "eSws"), Err(Refusal::Binding));
        check(last.replace("biws", "biw"), Err(Refusal::Malformed));
        check(last.replace("VQ=", "VQ"), Err(Refusal::Malformed));
        check(last.replace(",p=", ",q="), Err(Refusal::Malformed));
        check(last.replace(",p=", ",x=y,p="), Err(Refusal::Proof));
        check("c=biws,r=,p=".to_owned(), Err(Refusal::Malformed));
        check(String::new(), Err(Refusal::Malformed));
    }

    #[test]
    fn client_first_messages() {
        let check = |text: &str, expected: Option<(BindingFlag, Option<&str>, &str)>| {
            let parsed = ClientFirst::parse(text.as_bytes()).ok();
            let found = parsed.map(|first| (first.flag, first.authorize_as, first.name));
            let expected = expected
                .map(|(flag, other, name)| (flag, other.map(str::to_owned), name.to_owned()));
            assert_eq!(found, expected, "{text:?}");
        };
        check("n,,n=a,r=b", Some((BindingFlag::Unsupported, None, "a")));
        check("y,a=c,n=a,r=b", Some((BindingFlag::NotOffered, Some("c"), "a")));
        check("n,,n==2Cx=3Dy,r=b,ext=1", Some((BindingFlag::Unsupported, None, ",x=y")));
        let exporter = BindingFlag::Used("tls-exporter".to_owned());
        check("p=tls-exporter,,n=a,r=b", Some((exporter, None, "a")));
        for text in [
            "",
            ",",
            ",,",
            "n,,",
            "n,,n=a",
            "n,,n=a,",
            "n,,r=b,n=a",
            "n,,n=,r=b",
            "n,,n=a,r=",
            "n,,m=x,n=a,r=b",
            "n,,n=a=,r=b",
            "n,,n=a=2c,r=b",
            "n,,n=a\0,r=b",
            "n,,n=a,r=b c",
            "x,,n=a,r=b",
            "p,,n=a,r=b",
            "n,b,n=a,r=b",
            "n,a=,n=a,r=b",
            "n,,n=a,r=\u{e9}",
        ] {
            check(text, None);
        }
        check(&format!("n,,n=a,r={}", "b".repeat(257)), None);
        assert!(ClientFirst::parse(b"n,,n=\xff,r=b").is_err());
    }

    #[test]
    fn the_flag_must_fit_the_mechanism_and_the_channel() {
        let tls = ChannelBinding::Tls { exporter: Some([7; 32]), end_point: None };
        let bare = ChannelBinding::Tls { exporter: None, end_point: None };
        let check = |flag: &str, mechanism, channel: &ChannelBinding, expected: Option<&[u8]>| {
            let first = ClientFirst::parse(format!("{flag},,n=a,r=b").as_bytes()).unwrap();
            let input = first.binding_input(mechanism, channel).ok();
            assert_eq!(input.as_deref(), expected, "{flag} {mechanism:?}");
        };
        check("n", Mechanism::Plain, &tls, Some(b"n,,"));
        check("y", Mechanism::Plain, &tls, None);
        check("y", Mechanism::Plain, &bare, Some(b"y,,"));
        check("y", Mechanism::Plain, &ChannelBinding::None, Some(b"y,,"));
        check("p=tls-exporter", Mechanism::Plain, &tls, None);
        check("n", Mechanism::Plus, &tls, None);
        check("y", Mechanism::Plus, &tls, None);
        check("p=tls-unique", Mechanism::Plus, &tls, None);
        check("p=tls-server-end-point", Mechanism::Plus, &tls, None);
        let bound = [b"p=tls-exporter,,".as_slice(), &[7; 32]].concat();
        check("p=tls-exporter", Mechanism::Plus, &tls, Some(&bound));
    }

    #[test]
    fn made_up_salts_are_stable_and_differ() {
        let key = [1; 32];
        assert_eq!(made_up_keys(&key, "a"), made_up_keys(&key, "a"));
        assert_ne!(made_up_keys(&key, "a").salt, made_up_keys(&key, "b").salt);
        assert_ne!(made_up_keys(&key, "a").salt, made_up_keys(&[2; 32], "a").salt);
        assert_eq!(made_up_keys(&key, "a").salt.len(), limits::SALT_BYTES);
    }
}
