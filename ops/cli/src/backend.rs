//! Where administration happens: in a running server, or in a store that no server has open.

use std::{
    future::Future,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use env::Env;
use kv::OpenError;
use node::{
    StartError,
    admin::{Admin, AdminError, endpoint, token::AdminToken},
    config::{self, Config, PortBase},
    stores::{OpenStores, Stores},
};

use crate::{args::TargetArgs, error::CliError, remote::Remote};

/// A server or a store.
pub(crate) enum Backend {
    /// A store that is open in this process.
    Direct(Box<Direct>),
    /// A server.
    Remote(Remote),
}

/// A store that is open in this process.
pub(crate) struct Direct {
    runtime: tokio::runtime::Runtime,
    open: OpenStores,
    pub(crate) admin: Admin,
}

impl Direct {
    fn open(data: &Data) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::Process { what: "a runtime", reason: error.to_string() })?;
        let env = Env::system();
        let opening = OpenStores::open(&data.folder, &data.store, &data.blobs, &env);
        let open = runtime.block_on(opening)?;
        let admin = Admin { db: open.stores().db.clone(), env };
        Ok(Self { runtime, open, admin })
    }

    /// What is open.
    pub(crate) fn stores(&self) -> &Stores {
        self.open.stores()
    }

    /// Runs what answers for itself.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs one operation.
    pub(crate) fn run<T>(
        &self,
        operation: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, CliError> {
        Ok(self.runtime.block_on(operation)?)
    }
}

/// What the arguments name.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Server { url: String, token: String },
    Data(Data),
}

/// Stores that belong to a data folder.
#[derive(Debug, PartialEq, Eq)]
struct Data {
    folder: PathBuf,
    missing: Missing,
    store: config::Store,
    blobs: config::Blobs,
}

impl Data {
    /// As a configuration says.
    fn of(config: Config) -> Self {
        let Config { data, store, blobs, .. } = config;
        Self { missing: Missing::Create, store, blobs: uncached(blobs), ..Self::in_folder(data) }
    }

    /// All in the folder.
    fn in_folder(folder: PathBuf) -> Self {
        let (store, blobs) = (config::Store::default(), uncached(config::Blobs::default()));
        Self { folder, missing: Missing::Refuse, store, blobs }
    }
}

/// The cache is its node's alone.
fn uncached(blobs: config::Blobs) -> config::Blobs {
    config::Blobs { cache_bytes: 0, ..blobs }
}

/// What to do where the data folder does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Make it: the configuration says that it is to be there.
    Create,
    /// Say so: it may be a slip of the pen.
    Refuse,
}

impl Backend {
    /// Opens what the arguments name.
    pub(crate) fn open(args: &TargetArgs) -> Result<Self, CliError> {
        match target(args, |name| std::env::var(name).ok())? {
            Target::Server { url, token } => Ok(Self::Remote(Remote::new(&url, token))),
            Target::Data(data) => Self::open_data(&data),
        }
    }

    /// A server that runs, for what is in no store.
    pub(crate) fn server(args: &TargetArgs) -> Result<Remote, CliError> {
        let folder = match target(args, |name| std::env::var(name).ok())? {
            Target::Server { url, token } => return Ok(Remote::new(&url, token)),
            Target::Data(data) => data.folder,
        };
        let url =
            endpoint::find(&folder).map_err(|_| CliError::NoServer { data: folder.clone() })?;
        let token = AdminToken::load(&folder)?;
        Ok(Remote::new(&url, token.reveal().to_owned()))
    }

    /// A server that runs, where there is one, for what nodes have in memory; else as
    /// [`Backend::open`], which can tell who was not asked.
    pub(crate) fn open_running(args: &TargetArgs) -> Result<Self, CliError> {
        match Self::server(args) {
            Ok(remote) if remote.answers() => Ok(Self::Remote(remote)),
            _ => Self::open(args),
        }
    }

    fn open_data(data: &Data) -> Result<Self, CliError> {
        let folder = &data.folder;
        let file = |source| CliError::File { path: folder.clone(), source };
        match data.missing {
            Missing::Create => create_data_folder(folder)?,
            Missing::Refuse => {
                std::fs::metadata(folder).map_err(file)?;
            }
        }
        match Direct::open(data) {
            Ok(direct) => Ok(Self::Direct(Box::new(direct))),
            Err(CliError::Start(StartError::Store(OpenError::Locked { .. }))) => {
                let url = endpoint::find(folder)
                    .map_err(|_| CliError::Unasked { data: folder.clone() })?;
                let token = AdminToken::load(folder)?;
                Ok(Self::Remote(Remote::new(&url, token.reveal().to_owned())))
            }
            Err(error) => Err(error),
        }
    }

    /// Closes a store in order; to be called after success and failure alike.
    pub(crate) fn close(self) -> Result<(), CliError> {
        match self {
            Self::Remote(_) => Ok(()),
            Self::Direct(direct) => {
                let Direct { runtime, open, admin } = *direct;
                drop(admin);
                runtime.block_on(open.close()).map_err(CliError::Close)
            }
        }
    }
}

/// Makes a data folder that only its owner enters; mail is private.
pub(crate) fn create_data_folder(data: &Path) -> Result<(), CliError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|source| CliError::File { path: data.to_owned(), source })
}

/// Arguments go before the environment.
fn target(
    args: &TargetArgs,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Target, CliError> {
    if let Some(file) = &args.config {
        return Ok(Target::Data(Data::of(Config::load(file)?)));
    }
    if args.dev {
        let config = Config::dev(args.data.clone(), PortBase::default())?;
        return Ok(Target::Data(Data::of(config)));
    }
    if let Some(folder) = &args.data {
        return Ok(Target::Data(Data::in_folder(folder.clone())));
    }
    let Some(url) = args.url.clone().or_else(|| variable("ROOKERY_URL")) else {
        return Err(CliError::Usage(
            "say which server: --config FILE, --dev, --data DIR, or --url URL".to_owned(),
        ));
    };
    if !url.starts_with("http://") {
        return Err(CliError::Usage(format!(
            "{url}: the admin API is at an http:// URL; use a tunnel to reach another machine's"
        )));
    }
    let token = args.token.clone().or_else(|| variable("ROOKERY_TOKEN")).ok_or_else(|| {
        CliError::Usage("a URL needs a token: set ROOKERY_TOKEN to DATA/admin-token".to_owned())
    })?;
    Ok(Target::Server { url, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &TargetArgs, variables: &[(&str, &str)], expected: Result<Target, &str>) {
        let variable = |name: &str| {
            variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned())
        };
        match (target(args, variable), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
                assert_eq!(error.exit_code(), 2);
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn arguments_go_before_the_environment() {
        let variables = [("ROOKERY_URL", "http://h:1"), ("ROOKERY_TOKEN", "t")];
        let server = |url: &str, token: &str| {
            Ok(Target::Server { url: url.to_owned(), token: token.to_owned() })
        };
        let none = TargetArgs::default();
        check(&none, &[], Err("say which server"));
        check(&none, &variables, server("http://h:1", "t"));
        let url = TargetArgs { url: Some("http://g:2".to_owned()), ..TargetArgs::default() };
        check(&url, &variables, server("http://g:2", "t"));
        check(&url, &[], Err("a URL needs a token"));
        let tls = TargetArgs { url: Some("https://g:2".to_owned()), ..TargetArgs::default() };
        check(&tls, &variables, Err("http:// URL"));
        let data = TargetArgs { data: Some("/srv/x".into()), ..TargetArgs::default() };
        let folder = PathBuf::from("/srv/x");
        let in_folder = || Data::in_folder(folder.clone());
        check(&data, &variables, Ok(Target::Data(in_folder())));
        let dev = TargetArgs { dev: true, ..data };
        let created = Data { missing: Missing::Create, ..in_folder() };
        check(&dev, &variables, Ok(Target::Data(created)));
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made_by_a_slip() {
        let nowhere = Data::in_folder("/nowhere/at/all".into());
        let Err(error) = Backend::open_data(&nowhere) else {
            panic!("the folder does not exist");
        };
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
