//! One request to another domain's web server: a TLS policy is fetched, a report is handed in.
//!
//! HTTP/1.1 over [`Env`]'s sockets and our own resolver, with a certificate that authorities vouch for.
//! Deliberately absent: redirects (RFC 8461 §3.3 refuses them), compression, connections that are kept.

use std::net::SocketAddr;

use bytes::Bytes;
use dns::Resolver;
use env::{Env, Stream};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;

use super::security::{Demand, HandshakeError, Otherwise, Security};
use crate::limits;

/// What asks.
pub(super) struct Https<'a> {
    pub(super) env: &'a Env,
    pub(super) resolver: &'a Resolver,
    pub(super) security: &'a Security,
    pub(super) port: u16,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpsError {
    #[error("no connection: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(HandshakeError),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("the answer is no text/plain")]
    MediaType,
    #[error("the answer is larger than {} bytes", limits::STS_POLICY_BYTES_MAX)]
    TooLarge,
    #[error("the answer broke off")]
    BrokenOff,
    #[error("no answer in time")]
    TimedOut,
    #[error("not a URL that can be asked")]
    Url,
}

/// An `https` URL, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    host: String,
    /// Where it is not the usual one.
    port: Option<u16>,
    path: String,
}

impl Url {
    pub(super) fn new(host: &str, path: &str) -> Self {
        Self { host: host.to_owned(), port: None, path: path.to_owned() }
    }

    /// Reads an `https` URL; `None` for any other.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: hyper::Uri = text.parse().ok()?;
        let is_https = uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let authority = uri.authority().filter(|it| is_https && !it.as_str().contains('@'))?;
        let host = crate::names::domain(authority.host()).ok()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self { host, port: authority.port_u16(), path: path.to_owned() })
    }
}

impl Https<'_> {
    /// Fetches a text.
    pub(super) async fn text(&self, url: &Url) -> Result<Vec<u8>, HttpsError> {
        let fetching = self.exchange(url, Method::GET, None, Bytes::new());
        let fetched = self.env.timeout(limits::HTTPS_TIMEOUT, fetching).await;
        let (parts, body) = fetched.unwrap_or(Err(HttpsError::TimedOut))?;
        if parts.status != StatusCode::OK {
            return Err(HttpsError::Status(parts.status));
        }
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        if !kind.trim().eq_ignore_ascii_case("text/plain") {
            return Err(HttpsError::MediaType);
        }
        Ok(body)
    }

    /// Hands in a document.
    pub(super) async fn hand_in(
        &self,
        url: &Url,
        media_type: &'static str,
        document: Bytes,
    ) -> Result<(), HttpsError> {
        let handing = self.exchange(url, Method::POST, Some(media_type), document);
        let handed = self.env.timeout(limits::HTTPS_TIMEOUT, handing).await;
        let (parts, _) = handed.unwrap_or(Err(HttpsError::TimedOut))?;
        if parts.status.is_success() { Ok(()) } else { Err(HttpsError::Status(parts.status)) }
    }

    async fn exchange(
        &self,
        url: &Url,
        method: Method,
        media_type: Option<&'static str>,
        document: Bytes,
    ) -> Result<(hyper::http::response::Parts, Vec<u8>), HttpsError> {
        let stream = self.connect(url).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(url.path.as_str())
            .header(header::HOST, host_field(url))
            .header(header::USER_AGENT, concat!("rookery/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request.body(Full::new(document)).map_err(|_| HttpsError::Url)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(limits::HTTP_HEADERS_MAX)
            .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let asking = async move {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, limits::STS_POLICY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => HttpsError::TooLarge,
                false => HttpsError::BrokenOff,
            })?;
            Ok((parts, body.to_bytes().to_vec()))
        };
        // The connection moves the bytes; what is asked for ends first, or breaks off with it.
        let (mut asking, mut connection) = (std::pin::pin!(asking), std::pin::pin!(connection));
        tokio::select! {
            answer = &mut asking => answer,
            ended = &mut connection => match ended {
                Ok(()) => asking.await,
                Err(error) => Err(error.into()),
            },
        }
    }

    async fn connect(&self, url: &Url) -> Result<Stream, HttpsError> {
        let found = self.resolver.addresses(&url.host).await;
        let found = found.map_err(|error| HttpsError::Connect(error.to_string()))?.records;
        let mut last = HttpsError::Connect("no address".to_owned());
        for address in found.into_iter().take(limits::HTTPS_ADDRESSES_MAX) {
            let address = SocketAddr::new(address, url.port.unwrap_or(self.port));
            let stream = match self.env.connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = HttpsError::Connect(error.to_string());
                    continue;
                }
            };
            let demand = Demand::Authority(Otherwise::Refused);
            match self.security.handshake(stream, &url.host, &demand).await {
                Ok((stream, _)) => return Ok(stream),
                Err(error) => last = HttpsError::Tls(error),
            }
        }
        Err(last)
    }
}

fn host_field(url: &Url) -> String {
    match url.port {
        Some(port) => format!("{}:{port}", url.host),
        None => url.host.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_are_asked() {
        let url = |host: &str, port, path: &str| {
            Some(Url { host: host.to_owned(), port, path: path.to_owned() })
        };
        assert_eq!(Url::parse("https://Example.org/a?b=c"), url("example.org", None, "/a?b=c"));
        assert_eq!(Url::parse("HTTPS://example.org:8443"), url("example.org", Some(8443), "/"));
        for bad in [
            "http://example.org/",
            "mailto:a@example.org",
            "https://u@example.org/",
            "https:///x",
            "/x",
            "",
        ] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }
}
