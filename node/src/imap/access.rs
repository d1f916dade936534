//! LOGIN and AUTHENTICATE (RFC 9051 §6.2.2, §6.2.3).

use imap::{Completion, Reply, ResponseCode, Secret};

use super::{Connection, Disconnect, User, errors, mailboxes};
use crate::{
    auth::{AuthError, Identity, Step},
    metrics::AuthOutcome,
    services::auth_outcome,
};

impl Connection {
    pub(super) async fn login(&mut self, user: &str, password: &Secret) -> Result<(), Disconnect> {
        let peer = self.transport.peer;
        if self.is_blocked() {
            return self.done(blocked()).await;
        }
        match self.services.auth.check_password(user, password.expose(), peer).await {
            Ok(identity) => self.logged_in(identity).await,
            Err(error) => self.refused(&error).await,
        }
    }

    pub(super) async fn authenticate(
        &mut self,
        mechanism: &str,
        initial: Option<Secret>,
    ) -> Result<(), Disconnect> {
        if self.is_blocked() {
            return self.done(blocked()).await;
        }
        let binding = self.transport.channel_binding();
        self.exchange = self.services.auth.begin(mechanism, self.transport.peer, &binding);
        if self.exchange.is_none() {
            return self.done(Completion::no("The mechanism is not supported")).await;
        }
        self.authenticate_step(initial).await
    }

    pub(super) async fn authenticate_step(
        &mut self,
        response: Option<Secret>,
    ) -> Result<(), Disconnect> {
        let Some(exchange) = &mut self.exchange else {
            return self.done(Completion::bad("No authentication is under way")).await;
        };
        match exchange.step(response.as_ref().map(Secret::expose)).await {
            Step::Challenge(challenge) => self.reply(Reply::Challenge(challenge.into())).await,
            Step::Done(identity) => {
                self.exchange = None;
                self.logged_in(identity).await
            }
            Step::Failed(error) => {
                self.exchange = None;
                self.refused(&error).await
            }
        }
    }

    /// Whether the client was blocked since it connected.
    fn is_blocked(&self) -> bool {
        self.services.guard.blocks(self.transport.peer)
    }

    async fn logged_in(&mut self, identity: Identity) -> Result<(), Disconnect> {
        self.services.metrics.auth(AuthOutcome::Success);
        tracing::info!(account = %identity.account, "logged in");
        self.transport.session.logged_in(identity.account);
        let wakeups = self.services.hub.listen(identity.account);
        self.user = Some(User { account: identity.account, wakeups, interest: None });
        // What a crash cut off is taken up here; it must not keep the owner out.
        if let Err(error) = mailboxes::finish_deletions(&self.services, identity.account).await {
            tracing::warn!(%error, "a deletion is not finished");
        }
        self.done(Completion::ok()).await
    }

    async fn refused(&mut self, error: &AuthError) -> Result<(), Disconnect> {
        self.services.metrics.auth(auth_outcome(error));
        self.services.login_failed(self.transport.peer, error);
        tracing::info!(peer = %self.transport.peer, %error, "login refused");
        let completion = match error {
            AuthError::Store(error) => errors::store(error),
            AuthError::BadCredentials => Completion::no("Wrong name or password")
                .with_code(ResponseCode::AuthenticationFailed),
            AuthError::TooManyFailures { .. } => {
                Completion::no("Too many failed logins, try later").with_code(ResponseCode::Limit)
            }
            AuthError::Disabled => Completion::no("The account may not log in")
                .with_code(ResponseCode::AuthorizationFailed),
            AuthError::NotAuthorized => {
                Completion::no("Logging in as somebody else is not allowed")
                    .with_code(ResponseCode::AuthorizationFailed)
            }
            AuthError::ChannelBinding => Completion::no("The channel binding does not match")
                .with_code(ResponseCode::AuthenticationFailed),
            AuthError::Malformed(what) => Completion::no(*what),
            AuthError::Busy => {
                Completion::no("Too busy, try again").with_code(ResponseCode::Unavailable)
            }
        };
        self.done(completion).await
    }
}

fn blocked() -> Completion {
    Completion::no("This address is blocked for now").with_code(ResponseCode::Unavailable)
}
