//! The random numbers of this process.

use std::sync::Arc;

/// Draws a number from 0 to below 1, uniformly. A test passes one that it can repeat.
pub type Random = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The generator of this process.
pub fn random() -> f64 {
    fastrand::f64()
}
