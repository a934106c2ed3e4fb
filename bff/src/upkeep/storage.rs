//! What this service stores in Redis, and under which names.

use std::time::Duration;

use carillon_broker::{Keep, Names, Retention, Settings};
use carillon_service::parse_duration;
use clap::Args;

/// The options of storage. Each is also an environment variable.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Names and history in Redis")]
pub struct StorageOptions {
    /// Prefix of all names in Redis, for a deployment of its own on a server that others share
    #[arg(long, env, value_parser = Names::in_namespace)]
    pub namespace: Option<Names>,
    /// History that is kept of notifications for everyone, as AGE/ENTRIES/BYTES; docs/limits.md has the arithmetic
    /// [default: 24h/100000/64MiB]
    #[arg(long, env, value_parser = parse_keep)]
    pub history_everyone: Option<Keep>,
    /// History that is kept of each topic [default: 24h/10000/4MiB]
    #[arg(long, env, value_parser = parse_keep)]
    pub history_topic: Option<Keep>,
    /// History that is kept of each user [default: 7d/5000/256KiB]
    #[arg(long, env, value_parser = parse_keep)]
    pub history_user: Option<Keep>,
    /// History that is kept of each session [default: 7d/1000/64KiB]
    #[arg(long, env, value_parser = parse_keep)]
    pub history_session: Option<Keep>,
    /// Bytes that one user may store in a day by sending, on all replicas together [default: 20MiB]
    #[arg(long, env, value_parser = parse_bytes)]
    pub send_bytes_per_day: Option<u64>,
}

impl StorageOptions {
    /// Returns the settings of the broker.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        let Retention { everyone, topic, user, session } = default.retention;
        Settings {
            names: self.namespace.clone().unwrap_or_default(),
            retention: Retention {
                everyone: self.history_everyone.unwrap_or(everyone),
                topic: self.history_topic.unwrap_or(topic),
                user: self.history_user.unwrap_or(user),
                session: self.history_session.unwrap_or(session),
            },
            stored_bytes_per_day: self.send_bytes_per_day.unwrap_or(default.stored_bytes_per_day),
        }
    }
}

fn parse_keep(text: &str) -> Result<Keep, String> {
    let usage = || format!("'{text}': write AGE/ENTRIES/BYTES, like 24h/10000/4MiB");
    let parts: Vec<_> = text.split('/').map(str::trim).collect();
    let [age, entries, bytes] = parts[..] else { return Err(usage()) };
    let age = parse_duration(age).map_err(|error| format!("{}: {error}", usage()))?;
    let entries = entries.parse().ok().filter(|entries| *entries > 0).ok_or_else(usage)?;
    let bytes = parse_bytes(bytes).map_err(|error| format!("{}: {error}", usage()))?;
    if age < Duration::from_secs(1) {
        return Err(format!("{}: an age of a second or more", usage()));
    }
    Ok(Keep { age, entries, bytes })
}

/// Parses a number of bytes, with or without KiB, MiB or GiB.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1_u64 << 30)];
    let unit = units.iter().find_map(|(unit, bytes)| Some((text.trim().strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let number: Option<u64> = number.trim().parse().ok().filter(|number| *number > 0);
    let bytes = number.and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("'{text}': write a number of bytes, like 4096, 64KiB or 4MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_written_as_age_entries_and_bytes() {
        let keep = parse_keep("36h / 5 /2MiB").unwrap();
        assert_eq!(keep, Keep { age: Duration::from_secs(36 * 3_600), entries: 5, bytes: 2 << 20 });
        for text in [
            "",
            "24h",
            "24h/5",
            "24h/0/1",
            "24h/5/0",
            "x/5/1",
            "24h/-1/1",
            "24h/5/1MB",
            "1ms/5/1",
            "1h/1/1/1",
        ] {
            assert!(parse_keep(text).unwrap_err().contains("AGE/ENTRIES/BYTES"), "{text}");
        }
    }

    #[test]
    fn bytes_have_a_unit_or_none() {
        for (text, bytes) in [("1", 1), ("64KiB", 65_536), (" 2 GiB ", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        assert!(parse_bytes("99999999999GiB").is_err());
    }
}
