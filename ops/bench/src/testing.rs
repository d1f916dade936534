//! Servers that behave as a test wants.

use std::{future::Future, sync::Arc};

use clap::Parser;
use env::{Env, Stream, Task};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{args::BenchArgs, measure, report::Report};

/// A server; it ends when dropped.
pub(crate) struct Fake {
    pub(crate) port: u16,
    _accepts: Task<()>,
}

/// The server's end of a connection.
pub(crate) struct Peer(BufReader<Stream>);

impl Fake {
    /// Serves each connection by `serve`, which gets the connection's number from 0 on.
    pub(crate) async fn start<F>(serve: impl Fn(Peer, u64) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let env = Env::system();
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_address().unwrap().port();
        let serve = Arc::new(serve);
        let accepts = env.clone().spawn("fake server", async move {
            let mut sessions = Vec::new();
            for number in 0.. {
                let stream = listener.accept().await.unwrap().stream;
                let session = serve(Peer(BufReader::new(stream)), number);
                sessions.push(env.spawn("fake session", session));
            }
        });
        Self { port, _accepts: accepts }
    }

    /// The same server, where nobody listens any more.
    pub(crate) fn gone(self) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self { port: listener.local_addr().unwrap().port(), ..self }
    }

    /// Runs the load generator with these arguments on this server.
    pub(crate) async fn bench(&self, arguments: &str) -> Report {
        self.bench_with(arguments, &[]).await
    }

    /// The same, with arguments that may have spaces.
    pub(crate) async fn bench_with(&self, arguments: &str, more: &[&str]) -> Report {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            bench: BenchArgs,
        }
        let line = format!("bench {arguments} --port {}", self.port);
        let all = line.split_whitespace().chain(more.iter().copied());
        let alone = Alone::try_parse_from(all).unwrap();
        Box::pin(measure(&alone.bench, &Env::system())).await.unwrap()
    }
}

/// Each ends with `None` where the client is gone, as a server's session does.
impl Peer {
    /// The next line, without its end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.0.read_until(b'\n', &mut line).await.ok()?;
        (read > 0).then(|| String::from_utf8(line).unwrap().trim_end().to_owned())
    }

    pub(crate) async fn say(&mut self, text: &str) -> Option<()> {
        let text = text.replace('\n', "\r\n");
        self.0.get_mut().write_all(text.as_bytes()).await.ok()?;
        self.0.get_mut().flush().await.ok()
    }

    pub(crate) async fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let mut taken = vec![0; bytes];
        self.0.read_exact(&mut taken).await.ok().map(|_| taken)
    }

    /// Waits until the client goes.
    pub(crate) async fn silence(&mut self) -> Option<()> {
        while self.line().await.is_some() {}
        None
    }
}

/// Kind and count of each error.
pub(crate) fn errors(report: &Report) -> Vec<(&'static str, u64)> {
    report.errors.iter().map(|counted| (counted.kind, counted.count)).collect()
}
