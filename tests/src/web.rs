//! A web server with a few texts (HTTPS), for what domains publish.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::postfix::Shown;

/// A web server; its thread lives as long as the test's process.
#[derive(Debug)]
pub struct Web {
    /// Where it listens on loopback.
    pub port: u16,
    texts: Arc<Mutex<BTreeMap<String, String>>>,
    posted: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Web {
    /// Starts one with this certificate and no texts.
    ///
    /// # Panics
    /// Where the certificate is none.
    pub fn start(shown: &Shown) -> Self {
        let chain =
            CertificateDer::pem_slice_iter(shown.chain.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).expect("it is a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain.expect("they are certificates"), key)
            .expect("the key is the certificate's");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let web = Self { port, texts: Arc::default(), posted: Arc::default() };
        let (texts, posted, config) =
            (Arc::clone(&web.texts), Arc::clone(&web.posted), Arc::new(config));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that does not like what it sees hangs up.
                let _hung_up = answer(stream, &config, &texts, &posted);
            }
        });
        web
    }

    /// Publishes a text at `https://HOST/PATH`.
    ///
    /// # Panics
    /// Never: nobody panics while holding the texts.
    pub fn publish(&self, host: &str, path: &str, text: &str) {
        let mut texts = self.texts.lock().expect("nobody panics here");
        texts.insert(format!("{host}{path}"), text.to_owned());
    }

    /// What was posted.
    ///
    /// # Panics
    /// Never: nobody panics while holding it.
    pub fn posted(&self) -> Vec<Vec<u8>> {
        self.posted.lock().expect("nobody panics here").clone()
    }
}

fn answer(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    texts: &Mutex<BTreeMap<String, String>>,
    posted: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    let session = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(name));
        line.map_or("", |line| line[name.len()..].trim()).to_owned()
    };
    let found = texts.lock().expect("nobody panics here").get(&(field("host:") + path)).cloned();
    let (status, text) = if head.starts_with("POST ") {
        let mut body = vec![0; field("content-length:").parse().unwrap_or(0)];
        stream.read_exact(&mut body)?;
        posted.lock().expect("nobody panics here").push(body);
        ("200 OK", String::new())
    } else {
        found.map_or(("404 Not Found", String::new()), |text| ("200 OK", text))
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
