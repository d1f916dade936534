//! The accounts of a world, all with one password.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version, password_hash::SaltString};
use env::Env;
use kv::Database;
use mail::{AccountId, NewAccount, OperationId, directory::Address, keys::account::Credential};
use node::admin::{Admin, domains};

/// The domain that the world's nodes take mail for.
pub const DOMAIN: &str = "example.org";

/// Every account's password. Its stored hash is a cheap one: a login in a simulation proves nothing
/// about Argon2, and would take longer than all else.
pub const PASSWORD: &str = "correct horse battery staple";

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Its address, which is its login name too.
    pub address: String,
}

/// Makes the domain and its accounts.
pub(super) async fn make(db: &Database, env: &Env, count: u8) -> Vec<Account> {
    mail::schema::open(db).await.expect("a new store has no other schema");
    let admin = Admin { db: db.clone(), env: env.clone() };
    domains::add(&admin, DOMAIN).await.expect("nobody has added it yet");
    let mut made = Vec::new();
    for number in 1..=count {
        made.push(add(db, env, &format!("user-{number}"), 0).await);
    }
    made
}

/// Makes an account of the domain.
pub(super) async fn add(db: &Database, env: &Env, local: &str, quota_bytes: u64) -> Account {
    let address = format!("{local}@{DOMAIN}");
    let new = &NewAccount {
        address: Address::parse(&address).expect("it is an address"),
        description: String::new(),
        quota_bytes,
        credential: Credential { argon2: cheap_hash(), scram_sha256: None },
    };
    let now = env.wall();
    let operations = &std::array::from_fn(|_| OperationId::random(env));
    let id = db
        .run(async |tx| mail::create_account(&tx, new, now, operations).await)
        .await
        .expect("nobody disturbs it");
    Account { id, address }
}

fn cheap_hash() -> String {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).expect("the least there is");
    let salt = SaltString::encode_b64(&[7; 16]).expect("16 bytes are a salt");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(PASSWORD.as_bytes(), &salt)
        .expect("the password is short")
        .to_string()
}
