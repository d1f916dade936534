//! [`Judge`]: a connection, its sender, its message, in the order in which they come.

use std::net::IpAddr;

use dns::Resolver;
use env::Env;
use message::Field;

use crate::{
    arc::{self, ArcError, ArcResult, ArcVerdict},
    digest::Digest,
    dkim::{self, DkimError, DkimResult, DkimVerdict, Keys, Kind, Signature},
    dmarc::{self, Authenticated, DmarcResult, DmarcVerdict},
    iprev::{self, IprevResult, IprevVerdict},
    key::Testing,
    limits::{POLICY_TIME_MAX, SIGNATURES_MAX, SPF_TIME_MAX},
    results,
    spf::{self, Identity, Question, SpfResult, SpfVerdict},
};

/// Judges where mail is from. Cloning is a few reference counts.
#[derive(Clone)]
pub struct Judge {
    env: Env,
    resolver: Resolver,
    hostname: String,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("hostname", &self.hostname).finish()
    }
}

/// A client, and what is known of it before it says whom it sends for.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its address; an IPv4 one as such.
    pub peer: IpAddr,
    /// The name that it greeted with.
    pub helo: String,
    /// Whether its address has a name that leads back.
    pub iprev: IprevVerdict,
    /// What the name that it greeted with says of it.
    pub spf_helo: SpfVerdict,
}

/// What was found of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// One a signature, the topmost first; at most [`SIGNATURES_MAX`].
    pub dkim: Vec<DkimVerdict>,
    /// The chain of those who handled it before.
    pub arc: ArcVerdict,
    /// Whether its author's domain vouches for it.
    pub dmarc: DmarcVerdict,
}

/// Whether somebody wants reports about another's domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportsWanted {
    /// They do.
    Yes,
    /// They do not say so.
    No,
    /// They could not be asked.
    Unknown,
}

impl Judge {
    /// A judge that signs its findings with `hostname` (RFC 8601 §2.5, `authserv-id`). What it asks at the same
    /// time is bounded as for one message ([`Resolver::for_message`]), that of its clones included.
    pub fn new(env: &Env, resolver: Resolver, hostname: &str) -> Self {
        let resolver = resolver.for_message();
        Self { env: env.clone(), resolver, hostname: hostname.to_owned() }
    }

    /// The name that it signs its findings with.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    fn time(&self) -> u64 {
        u64::try_from(self.env.wall().unix_seconds()).unwrap_or_default()
    }

    /// Judges a client by its address and its greeting. Ends within
    /// [`SPF_TIME_MAX`].
    pub async fn judge_connection(&self, peer: IpAddr, helo: &str) -> Connection {
        let peer = peer.to_canonical();
        let question = self.question(peer, helo, Identity::Helo);
        let (iprev, spf_helo) = tokio::join!(self.iprev(peer), self.spf(question));
        Connection { peer, helo: helo.to_owned(), iprev, spf_helo }
    }

    async fn iprev(&self, peer: IpAddr) -> IprevVerdict {
        let checking = iprev::check(&self.resolver, peer);
        self.env
            .timeout(SPF_TIME_MAX, checking)
            .await
            .unwrap_or(IprevVerdict { result: IprevResult::TempError, name: None })
    }

    fn question<'a>(
        &'a self,
        client: IpAddr,
        helo: &'a str,
        identity: Identity<'a>,
    ) -> Question<'a> {
        Question { client, helo, identity, receiver: &self.hostname, time: self.time() }
    }

    async fn spf(&self, question: Question<'_>) -> SpfVerdict {
        let checking = Box::pin(spf::check(&self.env, &self.resolver, question));
        match self.env.timeout(SPF_TIME_MAX, checking).await {
            Ok(verdict) => verdict,
            // RFC 7208 §4.6.4: an error, and one that may pass.
            Err(_) => spf::unanswered(question),
        }
    }

    /// Judges an envelope's sender; an empty one is judged by the greeting (RFC 7208 §2.4).
    pub async fn judge_sender(&self, connection: &Connection, mail_from: &str) -> SpfVerdict {
        if mail_from.is_empty() {
            return connection.spf_helo.clone();
        }
        let identity = Identity::MailFrom(mail_from);
        self.spf(self.question(connection.peer, &connection.helo, identity)).await
    }

    /// Judges a message that came from such a sender. Ends within [`crate::limits::KEY_TIME_MAX`] and [`POLICY_TIME_MAX`];
    /// what was not found out by then is a temporary error.
    ///
    /// Keys of seals are asked for once the newest signature of the chain has been seen to hold: a stranger
    /// copies seals of others as he likes.
    pub async fn judge_message(&self, sender: &SpfVerdict, digest: &Digest) -> Verdicts {
        if digest.is_too_large() {
            return too_large();
        }
        let fields = digest.fields();
        let signatures: Vec<_> = fields
            .iter()
            .filter(|field| field.is("DKIM-Signature"))
            .take(SIGNATURES_MAX)
            .map(|field| (field, Signature::parse(Kind::Dkim, field.value)))
            .collect();
        let of_signatures = signatures.iter().filter_map(|(_, parsed)| parsed.as_ref().ok());
        let mut chain = arc::Chain::read(&fields);
        let names = of_signatures.map(Signature::key_name).chain(chain.message_key()).collect();
        let mut keys = Keys::fetch(&self.env, &self.resolver, names).await;
        let at = self.time();
        let dkim: Vec<DkimVerdict> = signatures
            .into_iter()
            .map(|(field, parsed)| judge_signature(parsed, field, &fields, digest, &keys, at))
            .collect();
        chain.check_message(&fields, &digest.bodies, &keys, at);
        let sealing = async {
            keys.fetch_also(&self.env, &self.resolver, chain.seal_keys()).await;
            chain.verdict(&keys)
        };
        let (arc, dmarc) = tokio::join!(sealing, self.judge_author(sender, &dkim, &fields));
        Verdicts { dkim, arc, dmarc }
    }

    async fn judge_author(
        &self,
        sender: &SpfVerdict,
        dkim: &[DkimVerdict],
        fields: &[Field<'_>],
    ) -> DmarcVerdict {
        let signers = |result| {
            let such = dkim.iter().filter(move |verdict| verdict.result == result);
            such.map(|verdict| verdict.domain.clone()).collect()
        };
        let envelope = |result| (sender.result == result).then(|| sender.domain.clone());
        let authenticated = Authenticated {
            dkim: signers(DkimResult::Pass),
            spf: envelope(SpfResult::Pass),
            unknown_dkim: signers(DkimResult::TempError),
            unknown_spf: envelope(SpfResult::TempError),
        };
        Box::pin(dmarc::judge(&self.env, &self.resolver, fields, &authenticated)).await
    }

    /// Whether somebody in domain `at` wants reports about domain `of`, because it is the same organization's
    /// or says so (RFC 9990 §4). Otherwise a record could send them to anybody.
    pub async fn accepts_reports(&self, of: &str, at: &str) -> ReportsWanted {
        let asking = Box::pin(dmarc::accepts_reports(&self.env, &self.resolver, of, at));
        self.env.timeout(POLICY_TIME_MAX, asking).await.unwrap_or(ReportsWanted::Unknown)
    }

    /// The header field that tells what was found (RFC 8601), with its name and its line ends. It
    /// goes above everything that the message has.
    pub fn authentication_results(
        &self,
        connection: &Connection,
        sender: &SpfVerdict,
        verdicts: &Verdicts,
    ) -> String {
        let results = results::results(connection, sender, verdicts);
        results::field("Authentication-Results", &self.hostname, &results)
    }

    /// What was found, as it goes into a seal ([`crate::Signer::seal`]).
    pub fn results(
        &self,
        connection: &Connection,
        sender: &SpfVerdict,
        verdicts: &Verdicts,
    ) -> Vec<String> {
        results::results(connection, sender, verdicts)
    }

    /// Where the message claims to have been judged by this judge, or may: ranges of its bytes to drop, in
    /// order (RFC 8601 §5). Of one whose header [`Digest::is_too_large`] none are known.
    pub fn forged_results(&self, digest: &Digest) -> Vec<std::ops::Range<usize>> {
        results::forged(&digest.fields(), &self.hostname)
    }

    /// The same of a header that nobody has digested yet.
    pub fn forged_in(&self, header: &[u8]) -> Vec<std::ops::Range<usize>> {
        results::forged(&message::Fields::new(header).collect::<Vec<_>>(), &self.hostname)
    }
}

fn judge_signature(
    parsed: Result<Signature, DkimError>,
    field: &Field<'_>,
    fields: &[Field<'_>],
    digest: &Digest,
    keys: &Keys,
    at: u64,
) -> DkimVerdict {
    let signature = match parsed {
        Ok(signature) => signature,
        Err(reason) => return unread(reason),
    };
    let verified = dkim::verify(&signature, field, fields, &digest.bodies, keys, at);
    let (result, reason, testing) = match verified {
        Ok(key) => (DkimResult::Pass, None, key.testing == Testing::Yes),
        Err(reason) => (reason.result(), Some(reason), false),
    };
    DkimVerdict {
        result,
        reason,
        domain: signature.domain,
        selector: signature.selector,
        identity: signature.identity,
        algorithm: Some(signature.algorithm),
        signature_start: signature.start,
        testing,
    }
}

fn unread(reason: DkimError) -> DkimVerdict {
    DkimVerdict {
        result: reason.result(),
        reason: Some(reason),
        domain: String::new(),
        selector: String::new(),
        identity: String::new(),
        algorithm: None,
        signature_start: String::new(),
        testing: false,
    }
}

fn too_large() -> Verdicts {
    let arc = ArcVerdict {
        result: ArcResult::Fail,
        reason: Some(ArcError::Message(DkimError::HeaderTooLarge)),
        ..ArcVerdict::default()
    };
    let dmarc = DmarcVerdict { result: DmarcResult::PermError, ..DmarcVerdict::default() };
    Verdicts { dkim: vec![unread(DkimError::HeaderTooLarge)], arc, dmarc }
}
