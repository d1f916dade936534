//! One SASL exchange, for SMTP and IMAP alike: octets in, [`Step`] out.
//!
//! Base64 and the protocol's framing are the session's. An exchange that ended answers every
//! further step with [`AuthError::Malformed`].

use std::{fmt, net::IpAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use env::probe::Planted;

use super::{
    AuthError, Authenticator, ChannelBinding, Identity,
    keys::Network,
    limits,
    lookup::LoginName,
    scram::{self, Challenge, ClientFirst, Mechanism, Refusal},
};

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Send this, not yet encoded, and give the client's response to [`Exchange::step`].
    Challenge(Vec<u8>),
    /// The client has logged in.
    Done(Identity),
    /// It has not.
    Failed(AuthError),
}

/// A SASL exchange under way. Dropping it gives it up.
pub struct Exchange {
    authenticator: Authenticator,
    peer: IpAddr,
    state: State,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

enum State {
    Plain,
    LoginBegin,
    LoginName,
    LoginPassword {
        name: String,
    },
    ScramFirst {
        mechanism: Mechanism,
        channel: ChannelBinding,
    },
    ScramFinal(Box<Proving>),
    /// The server's signature is out; the client acknowledges with nothing.
    ScramDone(Identity),
    /// The server's error is out; the client acknowledges with anything.
    ScramRefused(AuthError),
    Over,
}

/// A SCRAM exchange that waits for the client's proof.
struct Proving {
    name: LoginName,
    authorize_as: Option<String>,
    challenge: Challenge,
}

impl Exchange {
    pub(super) fn new(
        authenticator: Authenticator,
        mechanism: &str,
        peer: IpAddr,
        channel: &ChannelBinding,
    ) -> Option<Self> {
        let scram = |mechanism| State::ScramFirst { mechanism, channel: channel.clone() };
        let state = match mechanism {
            "PLAIN" => State::Plain,
            "LOGIN" => State::LoginBegin,
            "SCRAM-SHA-256" => scram(Mechanism::Plain),
            "SCRAM-SHA-256-PLUS" if channel.is_available() => scram(Mechanism::Plus),
            _ => return None,
        };
        Some(Self { authenticator, peer, state })
    }

    /// Takes the client's decoded response. The first step takes the initial response, or `None`
    /// where the client sent none.
    ///
    /// A failed login answers late; dropping the future then loses nothing but the answer.
    pub async fn step(&mut self, input: Option<&[u8]>) -> Step {
        let state = std::mem::replace(&mut self.state, State::Over);
        if input.is_some_and(|input| input.len() > limits::RESPONSE_BYTES_MAX) {
            return failed("the response is too long");
        }
        match (state, input) {
            // RFC 4422 §3.1: the client speaks first and was not able to with the command.
            (state @ (State::Plain | State::ScramFirst { .. }), None) => {
                self.state = state;
                Step::Challenge(Vec::new())
            }
            (State::LoginBegin, None | Some([])) => {
                self.state = State::LoginName;
                Step::Challenge(b"Username:".to_vec())
            }
            (State::Plain, Some(input)) => self.plain(input).await,
            (State::LoginBegin | State::LoginName, Some(name)) => match std::str::from_utf8(name) {
                Ok(name) if !name.is_empty() => {
                    self.state = State::LoginPassword { name: name.to_owned() };
                    Step::Challenge(b"Password:".to_vec())
                }
                _ => failed("LOGIN takes a name in UTF-8"),
            },
            (State::LoginPassword { name }, Some(password)) => {
                ended(self.authenticator.check_password(&name, password, self.peer).await)
            }
            (State::ScramFirst { mechanism, channel }, Some(input)) => {
                let begun = self.scram_first(input, mechanism, &channel).await;
                match begun {
                    Ok(proving) => {
                        let message = proving.challenge.message().as_bytes().to_vec();
                        self.state = State::ScramFinal(Box::new(proving));
                        Step::Challenge(message)
                    }
                    Err(error) => Step::Failed(error),
                }
            }
            (State::ScramFinal(proving), Some(input)) => self.scram_final(input, *proving).await,
            (State::ScramDone(identity), Some([])) => Step::Done(identity),
            (State::ScramRefused(error), Some(_)) => Step::Failed(error),
            _ => failed("the response does not belong here"),
        }
    }

    /// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`.
    async fn plain(&self, message: &[u8]) -> Step {
        let mut parts = message.split(|byte| *byte == 0);
        let (Some(authorize_as), Some(name), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return failed("PLAIN takes three parts");
        };
        let (Ok(authorize_as), Ok(name)) =
            (std::str::from_utf8(authorize_as), std::str::from_utf8(name))
        else {
            return failed("the name is not UTF-8");
        };
        if name.is_empty() || password.is_empty() {
            return failed("PLAIN takes a name and a password");
        }
        let authorize_as = Some(authorize_as).filter(|name| !name.is_empty());
        let checked = self.authenticator.check_password(name, password, self.peer).await;
        if let (Ok(_), Some(wanted)) = (&checked, authorize_as)
            && env::probe::planted(Planted::SkipAuthorization)
        {
            let network = Network::of(self.peer);
            let wanted = self.authenticator.look_up(&LoginName::parse(wanted), network).await;
            return ended(wanted.and_then(|attempt| attempt.admit()));
        }
        ended(
            checked.and_then(|identity| authorize(identity, authorize_as, &LoginName::parse(name))),
        )
    }

    async fn scram_first(
        &self,
        message: &[u8],
        mechanism: Mechanism,
        channel: &ChannelBinding,
    ) -> Result<Proving, AuthError> {
        let first = ClientFirst::parse(message)?;
        let binding_input = first.binding_input(mechanism, channel)?;
        let name = LoginName::parse(&first.name);
        let auth = &self.authenticator;
        let attempt = auth.look_up(&name, Network::of(self.peer)).await?;
        // Made up in any case: the work is the same for a name that exists.
        let made_up = scram::made_up_keys(auth.salt_key(), name.as_str());
        let keys = attempt.scram().cloned().unwrap_or(made_up);
        let nonce = auth.shared.env.random_array::<{ limits::SERVER_NONCE_BYTES }>();
        let challenge = Challenge::new(&first, binding_input, &STANDARD.encode(nonce), keys);
        Ok(Proving { name, authorize_as: first.authorize_as, challenge })
    }

    async fn scram_final(&mut self, message: &[u8], proving: Proving) -> Step {
        match self.check_proof(message, &proving).await {
            Ok((identity, server_final)) => {
                self.state = State::ScramDone(identity);
                Step::Challenge(server_final.into_bytes())
            }
            Err(NotProved::Refused(refusal, error)) => {
                self.state = State::ScramRefused(error);
                Step::Challenge(refusal.message().as_bytes().to_vec())
            }
            Err(NotProved::Failed(error)) => Step::Failed(error),
        }
    }

    async fn check_proof(
        &self,
        message: &[u8],
        proving: &Proving,
    ) -> Result<(Identity, String), NotProved> {
        let auth = &self.authenticator;
        let permit = auth.turn(&auth.shared.proofs).await?;
        // Again: what was counted, changed or disabled since the challenge counts.
        let attempt = auth.look_up(&proving.name, Network::of(self.peer)).await?;
        let current = attempt.scram().is_some_and(|keys| keys == proving.challenge.keys());
        let verified = proving
            .challenge
            .verify(message)
            .and_then(|server_final| if current { Ok(server_final) } else { Err(Refusal::Proof) });
        let refused = |refusal, error| Err(NotProved::Refused(refusal, error));
        match verified {
            Ok(server_final) => {
                let identity = attempt.admit()?;
                let authorize_as = proving.authorize_as.as_deref();
                Ok((authorize(identity, authorize_as, &proving.name)?, server_final))
            }
            Err(Refusal::Proof) => {
                auth.count_failure(&attempt, permit).await?;
                refused(Refusal::Proof, auth.hold_back(&attempt).await)
            }
            Err(Refusal::Binding) => refused(Refusal::Binding, AuthError::ChannelBinding),
            Err(refusal @ (Refusal::Malformed | Refusal::Nonce)) => {
                refused(refusal, AuthError::Malformed("bad final message"))
            }
        }
    }
}

/// Why there is no proof: a refusal has words of its own in SCRAM, other failures have none.
enum NotProved {
    Refused(Refusal, AuthError),
    Failed(AuthError),
}

impl From<AuthError> for NotProved {
    fn from(error: AuthError) -> Self {
        Self::Failed(error)
    }
}

/// RFC 4422 §2: nobody acts as somebody else here; naming oneself is fine.
fn authorize(
    identity: Identity,
    authorize_as: Option<&str>,
    name: &LoginName,
) -> Result<Identity, AuthError> {
    let Some(wanted) = authorize_as else { return Ok(identity) };
    let wanted = LoginName::parse(wanted);
    if wanted.as_str() == name.as_str() || wanted.as_str() == identity.name {
        Ok(identity)
    } else {
        Err(AuthError::NotAuthorized)
    }
}

fn ended(result: Result<Identity, AuthError>) -> Step {
    match result {
        Ok(identity) => Step::Done(identity),
        Err(error) => Step::Failed(error),
    }
}

fn failed(what: &'static str) -> Step {
    Step::Failed(AuthError::Malformed(what))
}
