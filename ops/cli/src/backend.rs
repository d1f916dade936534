//! Where administration happens: in a running server, or in a store that no server has open.

use std::{
    future::Future,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use blob::BlobStore;
use env::Env;
use kv::{
    OpenError,
    embedded::{Embedded, EmbeddedOptions},
};
use node::{
    admin::{Admin, AdminError, endpoint, token::AdminToken},
    config::{Config, PortBase},
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
    store: Embedded,
    pub(crate) admin: Admin,
}

impl Direct {
    fn open(folder: &Path) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::Process { what: "a runtime", reason: error.to_string() })?;
        let env = Env::system();
        let store = {
            // The engine may start tasks.
            let _entered = runtime.enter();
            Embedded::open(folder, env.clone(), EmbeddedOptions::default())?
        };
        let admin = Admin { db: store.database(), env };
        Ok(Self { runtime, store, admin })
    }

    /// The store's blobs.
    pub(crate) fn blobs(&self) -> Result<BlobStore, CliError> {
        let opened = BlobStore::embedded(self.store.large_values(), self.admin.env.clone());
        Ok(self.runtime.block_on(opened).map_err(node::StartError::Blobs)?)
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
    Data { folder: PathBuf, missing: Missing },
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
            Target::Data { folder, missing } => Self::open_data(&folder, missing),
        }
    }

    fn open_data(data: &Path, missing: Missing) -> Result<Self, CliError> {
        let file = |source| CliError::File { path: data.to_owned(), source };
        match missing {
            Missing::Create => create_data_folder(data)?,
            Missing::Refuse => {
                std::fs::metadata(data).map_err(file)?;
            }
        }
        match Direct::open(&data.join("store")) {
            Ok(direct) => Ok(Self::Direct(Box::new(direct))),
            Err(CliError::Open(OpenError::Locked { .. })) => {
                let url = endpoint::find(data)
                    .map_err(|_| CliError::Unasked { data: data.to_owned() })?;
                let token = AdminToken::load(data)?;
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
                let Direct { runtime, store, admin } = *direct;
                drop(admin);
                runtime.block_on(store.close()).map_err(CliError::Close)
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
    let data = |folder, missing| Ok(Target::Data { folder, missing });
    if let Some(file) = &args.config {
        return data(Config::load(file)?.data, Missing::Create);
    }
    if args.dev {
        return data(Config::dev(args.data.clone(), PortBase::default())?.data, Missing::Create);
    }
    if let Some(folder) = &args.data {
        return data(folder.clone(), Missing::Refuse);
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
        check(
            &data,
            &variables,
            Ok(Target::Data { folder: folder.clone(), missing: Missing::Refuse }),
        );
        let dev = TargetArgs { dev: true, ..data };
        check(&dev, &variables, Ok(Target::Data { folder, missing: Missing::Create }));
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made_by_a_slip() {
        let Err(error) = Backend::open_data(Path::new("/nowhere/at/all"), Missing::Refuse) else {
            panic!("the folder does not exist");
        };
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
