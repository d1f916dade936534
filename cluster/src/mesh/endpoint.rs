//! The QUIC endpoint: its settings, and nothing of QUIC's own ambient clock or randomness.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use env::Env;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, NoneTokenLog, NoneTokenStore,
    TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{hkdf, hmac};

use super::{runtime, trust::Trust};
use crate::limits;

/// Bytes of a connection's id: long enough that none is guessed, short enough that it costs little.
const CONNECTION_ID_BYTES: usize = 8;

/// Bytes of the id that a first packet makes up for its receiver; the longest there are, since the
/// first packet's keys follow from it (RFC 9000 §7.2 wants 8 at least).
const INITIAL_ID_BYTES: usize = 20;

/// Unidirectional streams from whoever was called: the greeting.
const GREETINGS: u32 = 1;

/// Binds the socket and starts the stack.
pub(super) async fn bind(
    env: &Env,
    listen: SocketAddr,
    trust: &Trust,
    runtime: Arc<runtime::Runtime>,
) -> io::Result<(quinn::Endpoint, Arc<runtime::Socket>)> {
    let socket = Arc::new(runtime::Socket::new(env.clone(), env.datagrams(listen).await?)?);
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &env.random_array::<64>());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.rng_seed(Some(env.random_array()));
    let ids = env.clone();
    config.cid_generator(move || Box::new(Ids(ids.clone())));
    let server = server_config(env, trust);
    let stacks = Arc::clone(&socket);
    let endpoint =
        quinn::Endpoint::new_with_abstract_socket(config, Some(server), stacks, runtime)?;
    Ok((endpoint, socket))
}

fn server_config(env: &Env, trust: &Trust) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(trust.server()).expect("the suite is QUIC's first");
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
    let token_key = salt.extract(&env.random_array::<64>());
    let mut config = quinn::ServerConfig::new(Arc::new(tls), Arc::new(token_key));
    let mut tokens = ValidationTokenConfig::default();
    // Retry's tokens are enough; those of earlier connections would have to be remembered.
    tokens.sent(0).log(Arc::new(NoneTokenLog));
    config
        .transport_config(Arc::new(transport(0)))
        .validation_token_config(tokens)
        .time_source(trust.clock())
        .retry_token_lifetime(limits::MESH_HANDSHAKE_TIMEOUT)
        .migration(false)
        .max_incoming(limits::MESH_HANDSHAKES_MAX)
        .incoming_buffer_size(limits::MESH_INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(
            limits::MESH_INCOMING_BYTES_MAX * limits::MESH_HANDSHAKES_MAX as u64,
        );
    config
}

/// For connecting to the one peer that has `certificate`.
pub(super) fn client_config(env: &Env, trust: &Trust, certificate: &[u8]) -> quinn::ClientConfig {
    let tls = QuicClientConfig::try_from(trust.client(certificate)).expect("as for the server");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    let env = env.clone();
    config
        .transport_config(Arc::new(transport(GREETINGS)))
        .token_store(Arc::new(NoneTokenStore))
        .initial_dst_cid_provider(Arc::new(move || {
            ConnectionId::new(&env.random_array::<INITIAL_ID_BYTES>())
        }));
    config
}

fn transport(uni_streams: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = limits::MESH_IDLE_TIMEOUT.try_into().expect("seconds fit");
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::MESH_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(uni_streams))
        .stream_receive_window(VarInt::from_u32(limits::MESH_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(limits::MESH_CONNECTION_WINDOW_BYTES))
        .send_window(limits::MESH_SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(limits::MESH_DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(limits::MESH_DATAGRAM_BUFFER_BYTES)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits::MESH_KEEP_ALIVE))
        .initial_rtt(limits::MESH_ROUND_TRIP_GUESS);
    config
}

/// Connection ids from the environment's randomness.
struct Ids(Env);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.random_array::<CONNECTION_ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
