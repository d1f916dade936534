//! Questions to the servers and their answers, over UDP, and over TCP where UDP holds too little.
//!
//! What guards against forged answers where there are no signatures (RFC 5452): a port of its own for
//! every query, drawn by the machine; an id drawn by [`Env`]; an answer counts only from the server's
//! address, with that id and the question. What else arrives is passed over.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use env::Env;
use futures_util::{Stream, stream};
use hickory_net::{
    DnsError, NetError,
    proto::{
        op::{DnsRequest, DnsResponse, Message, OpCode, ResponseCode},
        rr::{Name, RecordType},
    },
    xfer::DnsHandle,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    answer::Unavailable,
    cache::{Cache, Key},
    limits::{ROUNDS, STRAY_DATAGRAMS_MAX, UDP_BYTES_MAX},
    places::Places,
    scope::{Runtime, Scope},
};

/// The servers, and what they said before. Cloning is one reference count.
#[derive(Clone)]
pub(crate) struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    servers: Vec<SocketAddr>,
    /// For one exchange with one server.
    patience: Duration,
    cache: Mutex<Cache>,
    places: Places,
    /// The server that answered last.
    preferred: AtomicUsize,
}

impl Transport {
    pub(crate) fn new(
        env: &Env,
        servers: Vec<SocketAddr>,
        patience: Duration,
        cache_entries: usize,
    ) -> Self {
        let shared = Shared {
            env: env.clone(),
            servers,
            patience,
            cache: Mutex::new(Cache::new(cache_entries)),
            places: Places::default(),
            preferred: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Forgets what was answered.
    pub(crate) fn forget(&self, name: &Name, kind: RecordType) {
        self.shared.cache().forget(&(name.into(), kind));
    }

    /// The answer to a query of one question, remembered or asked for.
    pub(crate) async fn ask(&self, message: Message) -> Result<DnsResponse, Unavailable> {
        let asked = self.shared.ask(message).await;
        if let Err(failure) = &asked {
            Scope::note(*failure);
        }
        asked
    }
}

impl DnsHandle for Transport {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let this = self.clone();
        Box::pin(stream::once(async move {
            let (message, _) = request.into_parts();
            this.ask(message).await.map_err(|failure| match failure {
                Unavailable::TimedOut => NetError::Timeout,
                Unavailable::ServersFailed => DnsError::ResponseCode(ResponseCode::ServFail).into(),
                Unavailable::Unreachable => NetError::NoConnections,
                Unavailable::Garbled => NetError::Message("the answer is garbled"),
                Unavailable::TooFar => NetError::Busy,
            })
        }))
    }
}

impl Shared {
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().expect("no code panics while it holds the cache")
    }

    async fn ask(&self, message: Message) -> Result<DnsResponse, Unavailable> {
        let question = message.queries.first().ok_or(Unavailable::Garbled)?;
        let key: Key = (question.name().into(), question.query_type());
        let remembered = self.cache().look(&key, self.env.monotonic());
        if let Some(remembered) = remembered {
            return remembered;
        }
        Scope::spend().ok_or(Unavailable::TooFar)?;
        let _place = self.places.take(&Scope::share()).await;
        let asked = self.ask_servers(message).await;
        let now = self.env.monotonic();
        match &asked {
            Ok(response) => self.cache().keep(key, response, now),
            Err(failure) => self.cache().keep_failure(key, *failure, now),
        }
        asked
    }

    async fn ask_servers(&self, message: Message) -> Result<DnsResponse, Unavailable> {
        let count = self.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = Unavailable::Unreachable;
        for turn in 0..count * ROUNDS {
            let place = (first + turn) % count;
            match self.exchange(self.servers[place], message.clone()).await {
                Ok(response) => match response.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => {
                        self.preferred.store(place, Ordering::Relaxed);
                        return Ok(response);
                    }
                    code => {
                        tracing::debug!(server = %self.servers[place], %code, "a server failed");
                        failure = Unavailable::ServersFailed;
                    }
                },
                Err(error) => {
                    tracing::debug!(server = %self.servers[place], %error, "no answer");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    async fn exchange(
        &self,
        server: SocketAddr,
        mut message: Message,
    ) -> Result<DnsResponse, Unavailable> {
        message.metadata.id = u16::from_le_bytes(self.env.random_array());
        let bytes = message.to_vec().map_err(|_| Unavailable::Garbled)?;
        let response = self.patiently(self.over_udp(server, &message, &bytes)).await?;
        if response.truncation {
            return self.patiently(self.over_tcp(server, &message, &bytes)).await;
        }
        Ok(response)
    }

    async fn patiently<T>(
        &self,
        exchange: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        self.env.timeout(self.patience, exchange).await.map_err(|_| Unavailable::TimedOut)?
    }

    async fn over_udp(
        &self,
        server: SocketAddr,
        message: &Message,
        bytes: &[u8],
    ) -> Result<DnsResponse, Unavailable> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = self.env.datagrams(SocketAddr::new(any, 0)).await.map_err(unreachable)?;
        socket.send_to(bytes, server).await.map_err(unreachable)?;
        let mut buffer = vec![0; UDP_BYTES_MAX];
        for _ in 0..STRAY_DATAGRAMS_MAX {
            let (length, from) = socket.receive(&mut buffer).await.map_err(unreachable)?;
            if from.ip().to_canonical() != server.ip().to_canonical()
                || from.port() != server.port()
            {
                continue;
            }
            match read(message, &buffer[..length]) {
                Read::Answer(response) => return Ok(*response),
                Read::Garbled => return Err(Unavailable::Garbled),
                Read::Stray => {}
            }
        }
        Err(Unavailable::Garbled)
    }

    async fn over_tcp(
        &self,
        server: SocketAddr,
        message: &Message,
        bytes: &[u8],
    ) -> Result<DnsResponse, Unavailable> {
        let mut stream = self.env.connect(server).await.map_err(unreachable)?;
        let length = u16::try_from(bytes.len()).map_err(|_| Unavailable::Garbled)?;
        // RFC 7766 §8: length and message in one write.
        let framed = [&length.to_be_bytes()[..], bytes].concat();
        stream.write_all(&framed).await.map_err(unreachable)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).await.map_err(unreachable)?;
        let mut buffer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut buffer).await.map_err(unreachable)?;
        match read(message, &buffer) {
            Read::Answer(response) if !response.truncation => Ok(*response),
            _ => Err(Unavailable::Garbled),
        }
    }
}

fn unreachable(error: io::Error) -> Unavailable {
    tracing::debug!(%error, "a server cannot be reached");
    Unavailable::Unreachable
}

/// What a datagram is to a query.
enum Read {
    Answer(Box<DnsResponse>),
    /// From who knows the query's id, but no answer.
    Garbled,
    /// Something else.
    Stray,
}

fn read(query: &Message, bytes: &[u8]) -> Read {
    if bytes.get(..2) != Some(&query.id.to_be_bytes()) {
        return Read::Stray;
    }
    let Ok(response) = DnsResponse::from_buffer(bytes.to_vec()) else {
        return Read::Garbled;
    };
    if response.op_code != OpCode::Query || response.queries != query.queries {
        return Read::Stray;
    }
    Read::Answer(Box::new(response))
}

#[cfg(test)]
mod tests {
    use hickory_net::proto::{
        op::Query,
        rr::{RData, Record, rdata::TXT},
    };
    use proptest::prelude::*;

    use super::*;

    fn query() -> Message {
        let mut query = Message::query();
        query.metadata.id = 0x1234;
        query.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::TXT));
        query
    }

    fn answer() -> Vec<u8> {
        let mut answer = Message::response(0x1234, OpCode::Query);
        answer.add_queries(query().queries.clone());
        for text in [&b"one"[..], b"two"] {
            let data = RData::TXT(TXT::from_bytes(vec![text]));
            answer.add_answer(Record::from_rdata(query().queries[0].name().clone(), 60, data));
        }
        answer.to_vec().unwrap()
    }

    #[test]
    fn an_answer_is_told_from_what_is_none() {
        let is_answer = |bytes: &[u8]| matches!(read(&query(), bytes), Read::Answer(_));
        assert!(is_answer(&answer()));
        assert!(!is_answer(&query().to_vec().unwrap()), "an echo is no answer");
        for cut in 0..answer().len() {
            assert!(!is_answer(&answer()[..cut]), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..600),
            keep in 2usize..80,
        ) {
            let mut bytes = answer();
            bytes.truncate(keep);
            bytes.extend(tail);
            if let Read::Answer(response) = read(&query(), &bytes) {
                let mut cache = Cache::new(1);
                let key = || (Name::root().into(), RecordType::TXT);
                let now = env::Monotonic::default();
                cache.keep(key(), &response, now);
                prop_assert!(!matches!(cache.look(&key(), now), Some(Err(_))));
            }
        }
    }
}
