//! A running server, by its admin API.

use std::{
    fmt::Display,
    io::{BufRead, BufReader, Read},
    ops::ControlFlow,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use ureq::http::{Method, Request, Response, StatusCode};

use crate::error::CliError;

/// Longer than the server lets any request take.
const TIMEOUT: Duration = Duration::from_secs(75);

/// Bytes of an answer that comes line by line: far more than a check tells, and an end to one that
/// has none.
const LINES_BYTES_MAX: u64 = 1 << 34;

/// Bytes that are copied at once.
const COPY_BYTES: usize = 64 * 1024;

/// How often a removal that outlasts one request is asked for again: an hour's worth.
const REMOVALS_MAX: usize = 60;

/// Why a server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// No connection, or it broke.
    #[error("cannot reach the server at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It refused, in its words.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// It answered something else than Rookery does.
    #[error("the server at {url} does not answer like Rookery: {reason}")]
    Foreign {
        /// Where.
        url: String,
        /// What it answered.
        reason: String,
    },
}

/// A server's admin API.
#[derive(Debug)]
pub(crate) struct Remote {
    agent: ureq::Agent,
    url: String,
    token: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
}

impl Remote {
    pub(crate) fn new(url: &str, token: String) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            // The token goes to the server and to nobody else.
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, url: url.trim_end_matches('/').to_owned(), token }
    }

    /// Asks for something.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, RemoteError> {
        let mut target = joined(path);
        for (index, (name, value)) in query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&format!("{name}={}", escaped(value)));
        }
        self.answer(Method::GET, &target, None)
    }

    /// Whether a node of ours is there: what is left of one that was killed names a port that
    /// nobody or somebody else has.
    pub(crate) fn answers(&self) -> bool {
        self.get::<serde_json::Value>(&["cluster", "nodes"], &[]).is_ok()
    }

    /// Makes something.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        self.answer(Method::POST, &joined(path), Some(json(body)))
    }

    /// Changes something.
    pub(crate) fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        self.answer(Method::PUT, &joined(path), Some(json(body)))
    }

    /// Removes something, however long it takes.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, RemoteError> {
        let path = joined(path);
        for _ in 1..REMOVALS_MAX {
            match self.answer(Method::DELETE, &path, None) {
                Err(RemoteError::Refused { code, .. }) if code == "timeout" => {}
                ended => return ended,
            }
        }
        self.answer(Method::DELETE, &path, None)
    }

    /// Asks for something whose answer is bytes, for as long as it takes, and copies them.
    pub(crate) fn bytes(
        &self,
        path: &[&str],
        mut each: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let request = self
            .request(Method::POST, &joined(path))
            .body(())
            .map_err(|error| self.unreachable(&error))?;
        let mut response = self.run_long(request)?;
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match reader.read(&mut buffer).map_err(|error| self.unreachable(&error))? {
                0 => return Ok(()),
                read => each(&buffer[..read])?,
            }
        }
    }

    /// Sends a request whose answer may take as long as it goes on coming.
    fn run_long<B: ureq::AsSendBody>(
        &self,
        request: Request<B>,
    ) -> Result<Response<ureq::Body>, RemoteError> {
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(None)
            .timeout_per_read(Some(TIMEOUT))
            .build();
        let mut response = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string();
        Err(self.refusal(status, &text.map_err(|error| self.unreachable(&error))?))
    }

    /// Asks for something whose answer comes line by line, for as long as it takes. Each line is
    /// given to `each`, which says whether to go on.
    pub(crate) fn lines<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), RemoteError> {
        let target = joined(path);
        let request = self
            .request(Method::POST, &target)
            .header("content-type", "application/json")
            .body(json(body))
            .map_err(|error| self.unreachable(&error))?;
        let mut response = self.run_long(request)?;
        let lines = BufReader::new(response.body_mut().as_reader()).take(LINES_BYTES_MAX).lines();
        for line in lines {
            let line = line.map_err(|error| self.unreachable(&error))?;
            let line = serde_json::from_str(&line).map_err(|error| RemoteError::Foreign {
                url: self.url.clone(),
                reason: error.to_string(),
            })?;
            if each(line).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// One request. An answer without a body is `null`.
    fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<String>,
    ) -> Result<T, RemoteError> {
        let (status, text) = self.exchange(method, target, body)?;
        let foreign = |reason: String| RemoteError::Foreign { url: self.url.clone(), reason };
        if status.is_success() {
            let text = if text.is_empty() { "null" } else { &text };
            return serde_json::from_str(text).map_err(|error| foreign(error.to_string()));
        }
        Err(self.refusal(status, &text))
    }

    fn refusal(&self, status: StatusCode, text: &str) -> RemoteError {
        match serde_json::from_str::<ErrorBody>(text) {
            Ok(ErrorBody { error: ErrorDetail { code, message } }) => {
                RemoteError::Refused { code, message }
            }
            Err(_) => {
                let reason = format!("status {status}");
                RemoteError::Foreign { url: self.url.clone(), reason }
            }
        }
    }

    fn unreachable(&self, reason: &impl Display) -> RemoteError {
        RemoteError::Unreachable { url: self.url.clone(), reason: reason.to_string() }
    }

    fn request(&self, method: Method, target: &str) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}/admin/v1/{target}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
    }

    fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<String>,
    ) -> Result<(StatusCode, String), RemoteError> {
        let request = self.request(method, target);
        let bad = |error: ureq::http::Error| self.unreachable(&error);
        let sent = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body);
                self.agent.run(request.map_err(bad)?)
            }
            None => self.agent.run(request.body(()).map_err(bad)?),
        };
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let text = response.body_mut().read_to_string();
        Ok((response.status(), text.map_err(|error| self.unreachable(&error))?))
    }
}

fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("requests have string keys only")
}

fn joined(path: &[&str]) -> String {
    path.iter().map(|segment| escaped(segment)).collect::<Vec<_>>().join("/")
}

/// RFC 3986 §2.1, for everything that is not unreserved.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        assert_eq!(joined(&["accounts", "a+b/c@example.org"]), "accounts/a%2Bb%2Fc@example.org");
        assert_eq!(escaped("ü?&"), "%C3%BC%3F%26");
    }

    #[test]
    fn a_server_that_is_not_there_is_told() {
        let remote = Remote::new("http://127.0.0.1:1/", String::new());
        let error = remote.get::<()>(&["domains"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("cannot reach the server at http://127.0.0.1:1: "), "{error}");
    }
}
