//! `bff rotate-session-key`: a new key of sessions, and the end of all sessions of the one before.

use anyhow::{Context, anyhow};
use carillon_auth::seal::{KeyId, Sealer};
use carillon_auth::token::KEEP_ALL_S;
use carillon_broker::{Broker, Names, Revocation};
use clap::Args;

use crate::clock::now_ms;

const NO_KEY: &str = "Redis has no key of sessions, so none was replaced: no session was begun yet (or the --namespace is another one). \
    If Redis has lost it, a replica that has it brings it back within a minute: then run this again";
const NOT_REVOKED: &str = "the key of sessions cannot be called back, and stays; nothing has changed. Where too many revocations are \
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

/// Calls back the key that is in use, which ends its sessions on every replica, and puts a new one in its place.
///
/// # Errors
/// When Redis has no key, has no room for the revocation, is away or refuses. Again is harmless, and makes another key.
pub async fn rotate_session_key(options: RotateOptions) -> anyhow::Result<()> {
    let broker = Broker::redis(&options.redis_url, options.namespace.unwrap_or_default())?;
    let fresh = Sealer::new_key().map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    // A key that was made here would end nothing: replicas may hold another one, which Redis has lost.
    let old = broker.kept_session_key().await?.ok_or_else(|| anyhow!(NO_KEY))?;
    // First, since a replica that receives it puts a new key in its place too, should this process end here.
    let key_id = KeyId::of(&old).to_string();
    let revocation = Revocation::SessionKey { key_id, until_s: now_ms() / 1_000 };
    // How long others are kept is the replicas' affair: this drops none of them.
    broker.revoke_for(&revocation, KEEP_ALL_S).await.context(NOT_REVOKED)?;
    broker.replace_session_key(old, fresh).await?;
    println!("sessions are sealed with a new key, and those of the one before have ended");
    Ok(())
}
