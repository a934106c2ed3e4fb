//! `bff dead`: shows entries that could not be read or delivered, and puts them back or drops them.

use std::io::Write;

use anyhow::bail;
use carillon_broker::{Broker, Dead, DeadList, Names};
use clap::Args;
use strum::VariantArray;

/// Maximum bytes of an entry that a line shows.
const SHOWN_BYTES: usize = 200;

/// The options of `bff dead`.
#[derive(Args, Clone, Debug)]
pub struct DeadOptions {
    /// URL of the Redis server: redis://, or rediss:// for TLS
    #[arg(long, env, default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    redis_url: String,
    /// Prefix of all names in Redis, the same as that of the replicas
    #[arg(long, env, value_parser = Names::in_namespace)]
    namespace: Option<Names>,
    /// Which dead list: producers, people or outbox [default: all; producers with --put-back and --drop]
    #[arg(long, value_parser = parse_list)]
    list: Option<DeadList>,
    /// Puts the entry with this id back where it is claimed next
    #[arg(long, value_name = "ID", conflicts_with = "drop")]
    put_back: Option<String>,
    /// Removes the entry with this id
    #[arg(long, value_name = "ID")]
    drop: Option<String>,
}

fn parse_list(text: &str) -> Result<DeadList, String> {
    text.parse().map_err(|_| format!("'{text}': use producers, people or outbox"))
}

/// Shows the dead lists, or puts an entry back or drops it.
///
/// # Errors
/// When Redis does not answer or refuses, or the entry does not exist.
pub async fn dead(options: DeadOptions) -> anyhow::Result<()> {
    let DeadOptions { redis_url, namespace, list, put_back, drop } = options;
    let broker = Broker::redis(&redis_url, namespace.unwrap_or_default())?;
    let one = list.unwrap_or_default();
    let (done, id) = match (put_back, drop) {
        (Some(id), _) => (broker.put_back(one, &id).await?, id),
        (None, Some(id)) => (broker.drop_dead(one, &id).await?, id),
        (None, None) => {
            for list in DeadList::VARIANTS.iter().copied().filter(|one| list.is_none_or(|list| list == *one))
            {
                show(list, &broker.dead(list).await?)?;
            }
            return Ok(());
        }
    };
    if !done {
        bail!("the dead list {} has no entry {id}: `bff dead --list {0}` shows it", one.into_str());
    }
    Ok(())
}

fn show(list: DeadList, entries: &[Dead]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {} entries", list.into_str(), entries.len())?;
    for Dead { id, reason, detail, claimed_by, size, raw } in entries {
        writeln!(out, "{id} {reason} {size} bytes, claimed by {claimed_by}: {}", detail.escape_debug())?;
        let shown = String::from_utf8_lossy(&raw[..raw.len().min(SHOWN_BYTES)]);
        writeln!(out, "  {}{}", shown.escape_debug(), if raw.len() > SHOWN_BYTES { "…" } else { "" })?;
    }
    Ok(())
}
