//! `bff rotate-session-key`: replaces the key of sessions, which ends all sessions of the old key.

use anyhow::{Context, anyhow};
use carillon_auth::seal::{KeyId, Sealer};
use carillon_auth::token::KEEP_ALL_S;
use carillon_broker::{Broker, Names, Revocation};
use clap::Args;

use crate::clock::now_ms;

const NO_KEY: &str = "Redis has no key of sessions, so none was replaced: no session was opened yet, or --namespace is another one. \
    If Redis has lost it, a replica that has it brings it back within a minute: then run this again";
const NOT_REVOKED: &str = "the key of sessions cannot be revoked, and stays; nothing has changed. Where too many revocations are \
    kept, the old ones go with the next one that a replica takes (POST /api/revocations): then run this again";

/// The options of `bff rotate-session-key`.
#[derive(Args, Clone, Debug)]
pub struct RotateOptions {
    /// URL of the Redis server: redis://, or rediss:// for TLS
    #[arg(long, env, default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    redis_url: String,
    /// Prefix of all names in Redis, the same as that of the replicas
    #[arg(long, env, value_parser = Names::in_namespace)]
    namespace: Option<Names>,
}

/// Revokes the current key, which ends its sessions on every replica, and replaces it with a new one.
///
/// # Errors
/// When Redis has no key, has no room for the revocation, does not answer or refuses. A repeat is harmless, and generates
/// another key.
pub async fn rotate_session_key(options: RotateOptions) -> anyhow::Result<()> {
    let broker = Broker::redis(&options.redis_url, options.namespace.unwrap_or_default())?;
    let fresh = Sealer::new_key().map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    // Generating a key here would end no session: replicas may have another one, which Redis has lost.
    let old = broker.kept_session_key().await?.ok_or_else(|| anyhow!(NO_KEY))?;
    // The revocation comes first: if this process ends here, a replica that receives it replaces the key too.
    let key_id = KeyId::of(&old).to_string();
    let revocation = Revocation::SessionKey { key_id, until_s: now_ms() / 1_000 };
    // The replicas decide how long other revocations are kept, so this call drops none.
    broker.revoke_for(&revocation, KEEP_ALL_S).await.context(NOT_REVOKED)?;
    broker.replace_session_key(old, fresh).await?;
    println!("sessions are sealed with a new key; sessions of the old key have ended");
    Ok(())
}
