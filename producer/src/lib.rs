//! Pushes notifications into the list: one a second ([`run`]), or one for each line of an input ([`push_lines`]). Each has
//! its id before the first attempt, so a repeated push after a lost reply has no effect.

mod config;
mod entry;
mod generate;
mod input;
mod lines;
mod push;

pub use config::{Config, Options};
pub use generate::run;
pub use lines::push_lines;
