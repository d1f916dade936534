//! How to reach the service.

use std::{fmt, fs, path::Path, path::PathBuf, time::Duration};

use crate::limits::S3_CREDENTIALS_BYTES_MAX;

/// Which service, and how to treat it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// `https://host` or `http://host:port`, without the bucket.
    pub endpoint: String,
    /// The region to sign for; many services take any.
    pub region: String,
    /// The bucket; it must exist.
    pub bucket: String,
    /// What every object's name begins with; may be empty.
    pub prefix: String,
    /// Where the bucket's name goes.
    pub style: AddressStyle,
    /// PEM file with the authorities that may vouch for the service, instead of the machine's own;
    /// for `https://` with a certificate of an authority of one's own.
    pub ca_file: Option<PathBuf>,
    /// Who we are.
    pub credentials: Credentials,
    /// How long to wait.
    pub time_limits: TimeLimits,
    /// How often to try.
    pub retries: Retries,
    /// A folder of our own for what was read; `None` for no cache.
    pub cache: Option<CacheSettings>,
    /// Requests under way at once. Each holds up to one part of 5 MiB.
    pub requests_max: usize,
}

/// Where the bucket's name goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressStyle {
    /// `https://host/bucket/object`
    #[default]
    Path,
    /// `https://bucket.host/object`
    VirtualHost,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For a connection.
    pub connect: Duration,
    /// For a request and its answer, and for a place among those under way.
    pub request: Duration,
    /// For the next byte of an answer.
    pub stall: Duration,
}

impl Default for TimeLimits {
    /// 30 seconds a request: a part of 5 MiB at 1.4 Mbit/s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
            stall: Duration::from_secs(10),
        }
    }
}

/// How often to try, and how long to rest between tries: a random part, at least half, of a time
/// that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Tries in all, at least one.
    pub attempts: u32,
    /// The first rest.
    pub delay: Duration,
    /// The longest rest.
    pub delay_max: Duration,
}

impl Default for Retries {
    /// Rests of 0.1 to 0.8 seconds: what a service that sheds load asks for, and short enough
    /// for a client that waits.
    fn default() -> Self {
        Self { attempts: 5, delay: Duration::from_millis(100), delay_max: Duration::from_secs(5) }
    }
}

/// The cache in front of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// A folder that nothing else uses. Made where it is missing, for this user alone.
    pub folder: PathBuf,
    /// Bytes of all files in it, headers included.
    pub bytes_max: u64,
    /// Files in it; about 150 bytes of memory each.
    pub files_max: usize,
}

/// An access key and its secret.
#[derive(Clone)]
pub struct Credentials {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Why there are no credentials. Never holds any part of them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is longer than any such file, or is no text.
    #[error("{}: this is no file of credentials", path.display())]
    NotCredentials {
        /// Which.
        path: PathBuf,
    },
    /// Something is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl Credentials {
    /// An access key and its secret.
    pub fn new(access_key: String, secret_key: String) -> Self {
        Self { access_key, secret_key, session_token: None }
    }

    /// From a file: either the section `[default]` of the usual format, with
    /// `aws_access_key_id`, `aws_secret_access_key` and perhaps `aws_session_token`, or two lines,
    /// the access key and the secret.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_file(path: &Path) -> Result<Self, CredentialsError> {
        let failed = |source| CredentialsError::File { path: path.to_owned(), source };
        let not = || CredentialsError::NotCredentials { path: path.to_owned() };
        if fs::metadata(path).map_err(failed)?.len() > S3_CREDENTIALS_BYTES_MAX {
            return Err(not());
        }
        let bytes = fs::read(path).map_err(failed)?;
        Self::parse(&String::from_utf8(bytes).map_err(|_| not())?)
    }

    /// From `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and perhaps `AWS_SESSION_TOKEN`.
    ///
    /// # Errors
    /// [`CredentialsError::Missing`].
    pub fn from_environment() -> Result<Self, CredentialsError> {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let need = |name| read(name).ok_or(CredentialsError::Missing(name));
        Ok(Self {
            access_key: need("AWS_ACCESS_KEY_ID")?,
            secret_key: need("AWS_SECRET_ACCESS_KEY")?,
            session_token: read("AWS_SESSION_TOKEN"),
        })
    }

    fn parse(text: &str) -> Result<Self, CredentialsError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with(['#', ';'])).collect();
        if let [access_key, secret_key] = lines[..]
            && !access_key.starts_with('[')
            && !access_key.contains('=')
        {
            return Ok(Self::new(access_key.to_owned(), secret_key.to_owned()));
        }
        let sections = lines.iter().skip_while(|line| **line != "[default]").skip(1);
        let section: Vec<(&str, &str)> = sections
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let read = |name: &str| {
            let found = section.iter().find(|(key, value)| *key == name && !value.is_empty());
            found.map(|(_, value)| (*value).to_owned())
        };
        Ok(Self {
            access_key: read("aws_access_key_id")
                .ok_or(CredentialsError::Missing("aws_access_key_id"))?,
            secret_key: read("aws_secret_access_key")
                .ok_or(CredentialsError::Missing("aws_secret_access_key"))?,
            session_token: read("aws_session_token"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_nothing_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, token) in [
            ("AKIA\nsecret=+/\n", None),
            (
                "# ours\n[default]\naws_access_key_id = AKIA\naws_secret_access_key=secret=+/\n",
                None,
            ),
            (
                "[other]\naws_access_key_id = x\n[default]\naws_access_key_id=AKIA\n\
                 aws_secret_access_key = secret=+/\naws_session_token = t\n[more]\n\
                 aws_session_token = u\n",
                Some("t"),
            ),
        ] {
            fs::write(file.path(), text).unwrap();
            let read = Credentials::from_file(file.path()).unwrap();
            assert_eq!((&*read.access_key, &*read.secret_key), ("AKIA", "secret=+/"));
            assert_eq!(read.session_token.as_deref(), token);
            assert_eq!(format!("{read:?}"), "Credentials(…)");
        }
        for text in ["", "AKIA", "[default]\naws_access_key_id = AKIA", "[other]\na = b\nc = d"] {
            fs::write(file.path(), text).unwrap();
            let told = Credentials::from_file(file.path()).unwrap_err().to_string();
            assert!(told.ends_with("is missing"), "{told}");
        }
        fs::write(file.path(), [0xff; 10]).unwrap();
        assert!(Credentials::from_file(file.path()).is_err());
        fs::write(file.path(), vec![b'\n'; 1 << 20]).unwrap();
        assert!(Credentials::from_file(file.path()).is_err());
        assert!(Credentials::from_file(Path::new("/nonexistent/file")).is_err());
    }
}
