/// Why the broker could not carry out a command. Any method of [`Broker`](crate::Broker) may fail with [`BrokerError::Away`]
/// or [`BrokerError::Refused`]; its own documentation names only further reasons.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// Redis cannot be reached, does not answer, or refuses for now. The command may have been carried out or not.
    #[error("Redis is away: {0}")]
    Away(String),
    /// Redis refused the command, or the command or its answer breaks a rule of ours.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// The URL cannot be used.
    #[error("no usable Redis URL: {0}; write redis://[user:password@]host[:port][/db] or rediss://… for TLS")]
    Url(String),
}

/// Errors of a server that may carry out the same command later, or once another server has its address.
const NOT_NOW: [&str; 13] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "OOM",
    "MISCONF",
    "BUSY",
    "NOREPLICAS",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "UNBLOCKED",
];

impl From<redis::RedisError> for BrokerError {
    fn from(error: redis::RedisError) -> Self {
        let not_now = error.code().is_some_and(|code| NOT_NOW.contains(&code));
        if not_now
            || error.is_io_error()
            || error.is_unrecoverable_error()
            || error.kind() == redis::ErrorKind::Parse
        {
            Self::Away(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> BrokerError {
        let value = redis::parse_redis_value(line.as_bytes()).expect("an answer");
        value.extract_error().expect_err("an error").into()
    }

    #[test]
    fn transient_errors_are_away_and_permanent_ones_are_refused() {
        for code in NOT_NOW {
            let error = answered(&format!("-{code} 3999 127.0.0.1:6381\r\n"));
            assert!(matches!(error, BrokerError::Away(_)), "{code}: {error:?}");
        }
        for code in ["WRONGTYPE", "NOPERM", "NOSCRIPT", "ERR", "MODE"] {
            let error = answered(&format!("-{code} not like that\r\n"));
            assert!(matches!(error, BrokerError::Refused(_)), "{code}: {error:?}");
        }
    }
}
