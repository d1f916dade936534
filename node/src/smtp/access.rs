//! AUTH (RFC 4954).

use smtp::{AuthFailure, Mechanism, Refusal, Reply, Secret};

use super::{Connection, errors};
use crate::{auth::Step, metrics::AuthOutcome, services::auth_outcome};

impl Connection {
    pub(super) async fn authenticate(
        &mut self,
        mechanism: Mechanism,
        initial: Option<Secret>,
    ) -> Reply {
        if self.services.blocks(self.protocol, self.transport.peer) {
            // Blocked since it connected.
            return Reply::Refused(Refusal::AuthTemporary);
        }
        let binding = self.transport.channel_binding();
        self.exchange = self.services.auth.begin(mechanism.name(), self.transport.peer, &binding);
        self.authenticate_step(initial).await
    }

    pub(super) async fn authenticate_step(&mut self, response: Option<Secret>) -> Reply {
        let Some(exchange) = &mut self.exchange else {
            // The session offers no mechanism that cannot be spoken on this channel.
            return Reply::Refused(Refusal::AuthFailed(AuthFailure::Malformed));
        };
        match exchange.step(response.as_ref().map(Secret::expose)).await {
            Step::Challenge(challenge) => Reply::Challenge(challenge.into()),
            Step::Done(identity) => {
                self.exchange = None;
                self.services.metrics.auth(AuthOutcome::Success);
                tracing::info!(account = %identity.account, "logged in");
                self.transport.session.logged_in(identity.account);
                self.visitor.is_user(Some(identity.account));
                self.user = Some(identity);
                Reply::Authenticated
            }
            Step::Failed(error) => {
                self.exchange = None;
                self.services.metrics.auth(auth_outcome(&error));
                self.services.login_failed(self.transport.peer, &error);
                tracing::info!(peer = %self.transport.peer, %error, "login refused");
                Reply::Refused(errors::auth(&error))
            }
        }
    }

    pub(super) fn authenticate_abort(&mut self) -> Reply {
        self.exchange = None;
        self.services.metrics.auth(AuthOutcome::Aborted);
        Reply::Accepted
    }
}
