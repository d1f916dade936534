//! A server on loopback that answers each query as its test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dns::{Resolver, Settings, Validation};
use env::{Env, Task};
use hickory_net::proto::op::{Message, OpCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Tcp,
}

/// The datagrams or messages that answer a query; none is silence.
pub(crate) type Replies = Vec<Vec<u8>>;

type Behaviour = Arc<dyn Fn(&Message, Way) -> Replies + Send + Sync>;

/// It ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    udp: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
    _tasks: [Task<()>; 2],
}

impl Server {
    pub(crate) async fn start(
        env: &Env,
        behaviour: impl Fn(&Message, Way) -> Replies + Send + Sync + 'static,
    ) -> Self {
        let behaviour: Behaviour = Arc::new(behaviour);
        let (udp, tcp) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // TCP first: its port is likely to be free for UDP.
        let (listener, datagrams, address) = loop {
            let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_address().unwrap();
            if let Ok(datagrams) = env.datagrams(address).await {
                break (listener, datagrams, address);
            }
        };
        let (behave, count) = (behaviour.clone(), udp.clone());
        let over_udp = env.spawn("test-dns-udp", async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = datagrams.receive(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&buffer[..length]).unwrap();
                for reply in behave(&query, Way::Udp) {
                    datagrams.send_to(&reply, from).await.unwrap();
                }
            }
        });
        let count = tcp.clone();
        let over_tcp = env.spawn("test-dns-tcp", async move {
            while let Ok(mut connection) = listener.accept().await {
                let Ok(length) = connection.stream.read_u16().await else { continue };
                let mut bytes = vec![0; usize::from(length)];
                connection.stream.read_exact(&mut bytes).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&bytes).unwrap();
                for reply in behaviour(&query, Way::Tcp) {
                    let length = u16::try_from(reply.len()).unwrap();
                    connection.stream.write_all(&length.to_be_bytes()).await.unwrap();
                    connection.stream.write_all(&reply).await.unwrap();
                }
            }
        });
        Self { address, udp, tcp, _tasks: [over_udp, over_tcp] }
    }

    /// Queries that came so far, over UDP and over TCP.
    pub(crate) fn queries(&self) -> (usize, usize) {
        (self.udp.load(Ordering::SeqCst), self.tcp.load(Ordering::SeqCst))
    }
}

/// A reply to the query, with nothing in it yet.
pub(crate) fn reply(query: &Message) -> Message {
    let mut reply = Message::response(query.id, OpCode::Query);
    reply.add_queries(query.queries.clone());
    reply
}

pub(crate) fn settings(servers: &[&Server]) -> Settings {
    Settings {
        servers: servers.iter().map(|server| server.address).collect(),
        validation: Validation::Off,
        timeout: Duration::from_secs(20),
        ..Settings::default()
    }
}

/// A resolver that asks the server and validates nothing.
pub(crate) fn plain(env: &Env, server: &Server) -> Resolver {
    Resolver::new(env, &settings(&[server])).unwrap()
}
