//! Every bound and cost of authentication, with its reason.

use std::time::Duration;

/// Argon2id memory, in KiB: OWASP's recommended minimum with [`ARGON2_PASSES`] passes.
pub const ARGON2_MEMORY_KIB: u32 = 19_456;

/// Argon2id passes over its memory: OWASP's number for [`ARGON2_MEMORY_KIB`].
pub const ARGON2_PASSES: u32 = 2;

/// Argon2id lanes. One, because logins run beside each other and not faster alone.
pub const ARGON2_LANES: u32 = 1;

/// The most memory that a stored Argon2id hash may ask for, in KiB. Room for stronger settings
/// later; a damaged record cannot ask for more.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 65_536;

/// The most passes that a stored Argon2id hash may ask for, for the same reason.
pub const ARGON2_PASSES_MAX: u32 = 16;

/// PBKDF2 rounds of new SCRAM credentials. RFC 7677 §4 asks for at least 4,096; the client pays
/// them at each login, and 15,000 stay below a tenth of a second on an old phone.
pub const SCRAM_ITERATIONS: u32 = 15_000;

/// Salt of both hashes: the 128 bits that RFC 9106 §4 recommends.
pub const SALT_BYTES: usize = 16;

/// Longest password, prepared or not. Hashing is linear in it only once, but it is held in
/// memory for every waiting login.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Longest login name: the longest address (RFC 5321 §4.5.3.1) and room for preparation.
pub const NAME_BYTES_MAX: usize = 512;

/// Longest SASL response. A name with every octet escaped, two nonces and two hashes fit.
pub const RESPONSE_BYTES_MAX: usize = 4096;

/// Longest nonce that a SCRAM client may send; real ones have 24 to 64 characters.
pub const CLIENT_NONCE_BYTES_MAX: usize = 256;

/// Random bytes of a SCRAM server nonce: 144 bits, which base64 writes without padding.
pub const SERVER_NONCE_BYTES: usize = 18;

/// Argon2id verifications at once on a node: each takes [`ARGON2_MEMORY_KIB`], so a storm of
/// logins takes 76 MiB and no more.
pub const VERIFICATIONS_MAX: usize = 4;

/// SCRAM proofs checked at once on a node. They cost no memory; the bound is on guesses whose
/// failure is not counted yet.
pub const PROOFS_MAX: usize = 64;

/// How long a login waits for its turn to be verified before it is told to come again.
pub const VERIFICATION_WAIT: Duration = Duration::from_secs(10);

/// Remembered verdicts of each kind (right, wrong) on a node: 64 bytes each.
pub const VERDICTS_MAX: usize = 8192;

/// How long a verdict is remembered: longer than the usual pause between two polls of a client.
pub const VERDICT_TIME: Duration = Duration::from_secs(15 * 60);

/// Failures that cost no delay, of one account from one network: a typing mistake or two.
pub const PAIR_FAILURES_FREE: u64 = 2;

/// Failures that cost no delay, of one network over all accounts: many people share one.
pub const NETWORK_FAILURES_FREE: u64 = 20;

/// Failures that cost no delay, of one account over all networks.
pub const ACCOUNT_FAILURES_FREE: u64 = 20;

/// The first delay; each further failure doubles it.
pub const DELAY_FIRST: Duration = Duration::from_secs(1);

/// The longest delay: well inside the time after which clients give a server up.
pub const DELAY_MAX: Duration = Duration::from_secs(15);

/// The least delay for a wrong password that was tried before: a client that tries it over and
/// over is not counted again, and must not spin either.
pub const REPEAT_DELAY: Duration = Duration::from_secs(2);

/// Failures an hour of one account from one network, after which it is refused unchecked. At
/// fifty guesses an hour a password that is on no list of the 100,000 worst lasts months.
pub const PAIR_FAILURES_MAX: u64 = 50;

/// Failures an hour of one network, after which it is refused unchecked. A provider's shared
/// address makes some dozens; trying one password on many accounts makes thousands.
pub const NETWORK_FAILURES_MAX: u64 = 300;

/// Counters that one transaction of a sweep removes: well inside the transaction's size.
pub const SWEEP_KEYS_MAX: usize = 1000;
