//! What a process of Carillon needs before its own work: options, logs, signals, probes, the accept loop of a port, profiles,
//! requests to other servers, background tasks whose failure ends the process, and errors as one line. It does not know
//! notifications; of `protocol` it uses problem documents alone. It is the only crate that reads the environment by itself.

mod admin;
mod bind;
mod check;
pub mod counts;
mod duration;
mod filled;
mod logs;
mod network;
mod open_files;
mod options;
pub mod outbound;
mod port;
mod problem;
pub mod profiles;
mod readiness;
mod run;
mod serve;
mod signals;
mod stderr;
mod tasks;

pub use admin::admin;
pub use bind::bind;
pub use check::check;
pub use duration::parse_duration;
pub use filled::{filled, words};
pub use logs::{init_logs, init_logs_at};
pub use network::network;
pub use open_files::raise_open_files;
pub use options::options;
pub use port::Port;
pub use problem::ProblemResponse;
pub use readiness::{Latch, Readiness};
pub use run::run;
pub use serve::{
    CONNECTIONS_PER_ADDRESS_MAX, ConnectionOptions, DRAIN_DEADLINE, PortLimit, Timeouts, WRITE_TIMEOUT, serve,
};
pub use signals::stop_on_signals;
pub use stderr::{log_lines_dropped, report};
pub use tasks::Tasks;
