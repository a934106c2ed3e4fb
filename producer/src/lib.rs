//! Writes notifications to the list: one a second ([`run`]), or one for each line of an input
//! ([`push_lines`]). Each has its id before the first try to push it, so pushing it again after a lost
//! reply shows it once.

mod config;
mod entry;
mod generate;
mod input;
mod lines;
mod push;

pub use config::{Config, Options};
pub use generate::run;
pub use lines::push_lines;
