//! TLS without secrets: what handshakes draw follows from the seed.
//!
//! `rustls` and `ring` draw from the machine. That would reach the world: an endpoint of QUIC looks
//! at some bits of a stray packet before it can know that it is none of its own, so that one order
//! of events would depend on what the machine drew. Here the process's provider draws from the
//! host whose code runs; its key exchange keeps nothing secret, and is cheaper for it.
//!
//! Architecture invariant: the provider is installed by [`Simulation::new`](crate::Simulation::new)
//! alone, in a process that plays worlds.

use std::cell::RefCell;

use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
        SupportedKxGroup, ring,
    },
    ffdhe_groups::FfdheGroup,
};

use crate::{executor::current_host, random::SplitMix64};

/// Bytes of a public key of X25519.
const KEY_BYTES: usize = 32;

thread_local! {
    /// For code that runs on no host: what prepares a world.
    static OF_NO_HOST: RefCell<SplitMix64> = RefCell::new(SplitMix64::new(crate::Seed(0)));
}

/// Makes the process's TLS draw from the world that this thread plays.
pub(crate) fn install(of_no_host: SplitMix64) {
    OF_NO_HOST.set(of_no_host);
    let provider = CryptoProvider {
        kx_groups: vec![&OpenExchange],
        secure_random: &WorldRandom,
        ..ring::default_provider()
    };
    // Another world of this process was first, with the same.
    let _installed = provider.install_default();
}

fn fill(bytes: &mut [u8]) {
    match current_host() {
        Some(host) => host.fill_random(bytes),
        None => OF_NO_HOST.with_borrow_mut(|stream| stream.fill(bytes)),
    }
}

#[derive(Debug)]
struct WorldRandom;

impl SecureRandom for WorldRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes);
        Ok(())
    }
}

/// Has the shape of X25519. Both keys together are the secret, which everyone can see.
#[derive(Debug)]
struct OpenExchange;

impl SupportedKxGroup for OpenExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut key = [0; KEY_BYTES];
        fill(&mut key);
        Ok(Box::new(Begun { key }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn usable_for_version(&self, _: ProtocolVersion) -> bool {
        true
    }
}

struct Begun {
    key: [u8; KEY_BYTES],
}

impl ActiveKeyExchange for Begun {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let theirs: &[u8; KEY_BYTES] =
            theirs.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let secret: [u8; KEY_BYTES] = std::array::from_fn(|at| self.key[at] ^ theirs[at]);
        Ok(SharedSecret::from(&secret[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.key
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use crate::{Latency, Seed, Simulation};

    /// The first bytes that a client of TLS sends.
    fn hello(seed: u64) -> Vec<u8> {
        let simulation = Simulation::new(Seed(seed), Latency::NONE);
        let env = simulation.machine(IpAddr::from([192, 0, 2, 1]));
        let greeting = env.spawn("hello", async {
            let config = ClientConfig::builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            let name = ServerName::try_from("mail.example.org").expect("it is a name");
            let mut client = ClientConnection::new(Arc::new(config), name).expect("it begins");
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("memory takes it");
            bytes
        });
        simulation.run(greeting).expect("nothing ends it")
    }

    #[test]
    fn a_handshake_follows_from_the_seed() {
        assert!(hello(1).len() > 100);
        assert_eq!(hello(1), hello(1));
        assert_ne!(hello(1), hello(2));
    }
}
