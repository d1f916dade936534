//! The certificates of the store, in use on this node.

use std::{collections::BTreeMap, sync::Arc};

use cluster::certificates::{self, Certificate, Certificates};
use env::Env;
use kv::Database;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use super::{
    Tls,
    shelf::{Served, Shelf},
};

impl Tls {
    /// Shows these from now on, to new handshakes. Tells of the names of those that cannot be used:
    /// another release may have checked them. Where nothing at all would be left to show, what
    /// is in use stays so.
    pub fn share(&self, certificates: &Certificates) {
        let held = self.shelf();
        let mut stored: BTreeMap<String, (u64, Arc<Served>)> = BTreeMap::new();
        for certificate in &certificates.all {
            let name = &certificate.name;
            let same = held.stored.get(name).filter(|(version, _)| *version == certificate.version);
            let served = match same {
                Some((_, served)) => Ok(Arc::clone(served)),
                None => self.serve(certificate),
            };
            match served {
                Ok(served) => {
                    stored.insert(name.clone(), (certificate.version, served));
                }
                Err(error) => {
                    tracing::error!(name, error, "a certificate of the store cannot be used");
                }
            }
        }
        if stored.is_empty() && held.own.is_none() && !held.stored.is_empty() {
            tracing::error!(
                "the store's last certificate is gone: this node shows it until it ends"
            );
            return;
        }
        self.replace(|held| Shelf::new(held.own.clone(), stored, self.source.hostname()));
    }

    fn serve(&self, certificate: &Certificate) -> Result<Arc<Served>, String> {
        let chain = certificate.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::try_from(&certificate.key[..]).map_err(str::to_owned)?;
        let served = self.making.serve(chain, key.clone_key());
        served.map(Arc::new).map_err(|error| error.to_string())
    }
}

/// Keeps what is shown equal to the store's certificates, whose number of changes is `version`.
pub(crate) async fn follow(env: Env, db: Database, tls: Tls, mut version: watch::Receiver<u64>) {
    let mut shown = None;
    loop {
        let wanted = *version.borrow_and_update();
        if shown != Some(wanted) {
            match certificates::all(&db).await {
                Ok(found) => {
                    tls.share(&found);
                    if shown.is_some() {
                        let (version, count) = (found.version, found.all.len());
                        tracing::info!(version, count, "the store's certificates have changed");
                    }
                    shown = Some(found.version);
                }
                Err(error) => {
                    tracing::warn!(%error, "the store's certificates cannot be read");
                    env.sleep(cluster::limits::STORE_PAUSE).await;
                    continue;
                }
            }
        }
        if version.changed().await.is_err() {
            return;
        }
    }
}
