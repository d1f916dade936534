//! `rookery backup`, `rookery restore`, and what a store needs that others have restored.
//!
//! A backup is written under a name of its own beside its file, synced, and renamed when it is
//! complete: a file that has the backup's name is a backup.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use env::Env;
use kv::embedded::{Embedded, Restored};
use mail::uid_validity::{self, Renewed};
use node::{
    admin::{AdminError, restored},
    config::{BLOB_FOLDER, STORE_FOLDER},
};

use crate::{
    args::{BackupArgs, RenewArgs, RestoreArgs},
    backend::{Backend, Direct, create_data_folder},
    error::CliError,
    output::Output,
    progress::ProgressLine,
};

/// Bytes after which the progress is shown again.
const PROGRESS_BYTES: u64 = 8 << 20;

/// Mailboxes after which the progress is shown again.
const PROGRESS_MAILBOXES: u64 = 1_000;

pub(crate) fn backup(args: &BackupArgs) -> Result<(), CliError> {
    let backend = Backend::open(&args.target)?;
    let mut target = Target::create(&args.file, args.progress)?;
    let written = match &backend {
        Backend::Direct(direct) => direct.wait(backup_here(direct, &mut target)),
        Backend::Remote(remote) => remote.bytes(&["backup"], |bytes| target.write(bytes)),
    };
    let closed = backend.close();
    target.progress.line.end();
    written?;
    closed?;
    let bytes = target.finish()?;
    Output::human().line(format_args!("{}: {bytes} bytes", args.file.display()))
}

async fn backup_here(direct: &Direct, target: &mut Target) -> Result<(), CliError> {
    let backup = direct.stores().backup.as_ref().ok_or(AdminError::BackedUpElsewhere)?;
    let mut reading = backup.begin().await.map_err(AdminError::Unavailable)?;
    while let Some(chunk) = reading.next_chunk().await? {
        target.write(&chunk)?;
    }
    Ok(())
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<(), CliError> {
    let file = |source| CliError::File { path: args.file.clone(), source };
    let backup = BufReader::new(File::open(&args.file).map_err(file)?);
    create_data_folder(&args.data)?;
    // Their bytes would go before the backup's.
    let files = args.data.join(BLOB_FOLDER);
    if std::fs::read_dir(&files).is_ok_and(|mut entries| entries.next().is_some()) {
        let source = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
        return Err(CliError::File { path: files, source });
    }
    let store = args.data.join(STORE_FOLDER);
    let env = Env::system();
    let mut progress = Progress::new(args.progress);
    let built = Embedded::restore(&store, backup, &env, |counts| progress.show(counts.bytes));
    progress.line.end();
    let built = built?;
    let mut progress = Progress::new(args.progress);
    let renewed = renew(&built, &env, &mut progress);
    progress.line.end();
    let renewed = renewed?;
    let counts = built.counts();
    built.finish()?;
    Output::human().line(format_args!(
        "{}: {} rows and {} pieces of messages; {} mailboxes have a new UIDVALIDITY",
        store.display(),
        counts.rows,
        counts.large_values,
        renewed.mailboxes
    ))
}

/// Gives every mailbox a new UIDVALIDITY before anybody sees the store: UIDs that the original gave
/// out since the backup are given out again.
fn renew(built: &Restored, env: &Env, progress: &mut Progress) -> Result<Renewed, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process { what: "a runtime", reason: error.to_string() })?;
    let unfinished = built.open()?;
    let db = unfinished.database();
    let renewing = uid_validity::renew(&db, built.created(), env.wall(), |renewed| {
        progress.show_mailboxes(renewed.mailboxes);
    });
    let renewed = runtime.block_on(renewing);
    let closed = runtime.block_on(unfinished.close());
    let renewed = renewed?;
    closed.map_err(CliError::Close)?;
    Ok(renewed)
}

pub(crate) fn renew_uid_validity(args: &RenewArgs) -> Result<(), CliError> {
    let backend = Backend::open(&args.target)?;
    let mut progress = Progress::new(args.progress);
    let renewed = match &backend {
        Backend::Direct(direct) => direct.wait(async {
            let age = Duration::from_hours(24 * u64::from(args.days));
            let shown = |renewed: Renewed| progress.show_mailboxes(renewed.mailboxes);
            Ok(restored::renew_uid_validities(&direct.admin, age, shown).await?)
        }),
        Backend::Remote(_) => {
            Err(CliError::Usage("a server has the store open: end it first".to_owned()))
        }
    };
    progress.line.end();
    let closed = backend.close();
    let renewed = renewed?;
    closed?;
    let Renewed { mailboxes, accounts } = renewed;
    Output::human()
        .line(format_args!("{mailboxes} mailboxes of {accounts} accounts have a new UIDVALIDITY"))
}

/// A backup's file while it is written. Dropped unfinished, it is removed.
struct Target {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    bytes: u64,
    progress: Progress,
}

impl Target {
    fn create(path: &Path, always: bool) -> Result<Self, CliError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let exists = |path: &Path| {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            Err(CliError::File { path: path.to_owned(), source })
        };
        if path.exists() {
            return exists(path);
        }
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(|source| CliError::File { path: partial.clone(), source })?;
        Ok(Self { path: path.to_owned(), partial, file, bytes: 0, progress: Progress::new(always) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.bytes += bytes.len() as u64;
        self.progress.show(self.bytes);
        Ok(())
    }

    /// Gives the file its name; returns its bytes.
    fn finish(self) -> Result<u64, CliError> {
        let named = self.file.sync_all().and_then(|()| std::fs::rename(&self.partial, &self.path));
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = named.and_then(|()| File::open(folder)?.sync_all());
        synced.map_err(|source| self.failed(source))?;
        Ok(self.bytes)
    }

    fn failed(&self, source: io::Error) -> CliError {
        CliError::File { path: self.path.clone(), source }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Gone already where the backup is complete.
        let _renamed = std::fs::remove_file(&self.partial);
    }
}

/// How far it is.
struct Progress {
    line: ProgressLine,
    next: u64,
}

impl Progress {
    fn new(asked_for: bool) -> Self {
        Self { line: ProgressLine::new(asked_for), next: 0 }
    }

    fn show(&mut self, bytes: u64) {
        self.tell(bytes, PROGRESS_BYTES, || format!("{} MB", bytes >> 20));
    }

    fn show_mailboxes(&mut self, mailboxes: u64) {
        self.tell(mailboxes, PROGRESS_MAILBOXES, || format!("{mailboxes} mailboxes"));
    }

    fn tell(&mut self, done: u64, step: u64, text: impl FnOnce() -> String) {
        if done >= self.next {
            self.next = done + step;
            self.line.show(&text());
        }
    }
}
