//! What a process of Carillon needs before its own work: options, logs, signals, probes, requests to other servers,
//! background tasks whose failure ends the process, and errors as one line. It does not know notifications, and it is the
//! only crate that reads the environment by itself.

mod admin;
mod bind;
mod check;
pub mod counts;
mod duration;
mod logs;
mod options;
pub mod outbound;
mod readiness;
mod run;
mod secret;
mod signals;
mod stderr;
mod tasks;

pub use admin::admin;
pub use bind::bind;
pub use check::check;
pub use duration::parse_duration;
pub use logs::{init_logs, init_logs_at};
pub use options::options;
pub use readiness::{Latch, Readiness};
pub use run::run;
pub use secret::{Secret, filled, words};
pub use signals::stop_on_signals;
pub use stderr::{log_lines_dropped, report};
pub use tasks::Tasks;
