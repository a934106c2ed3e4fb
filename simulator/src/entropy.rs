//! The randomness that a program requests from the operating system, decided by a seed.
//!
//! Hash maps, the fairness of `select!` and identifiers draw from it. With a seed, a run of one thread repeats exactly.

use std::cell::RefCell;

thread_local! {
    static GENERATOR: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
}

/// Decides all randomness of this thread. Call it before anything on the thread draws some.
pub(crate) fn seed(seed: u64) {
    GENERATOR.with_borrow_mut(|generator| generator.seed(seed));
    fastrand::seed(seed);
}

/// Stands in for `getrandom(2)` of the C library in this program.
///
/// # Safety
/// As that of the C library: `buffer` has room for `length` bytes.
#[allow(unsafe_code, reason = "it has the signature of the C library")]
#[allow(unreachable_pub, reason = "the linker reaches it")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives a buffer of this length.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    // While a thread ends its generator may be gone; nothing that is repeated depends on it then.
    let _ = GENERATOR.try_with(|generator| generator.borrow_mut().fill(buffer));
    length.cast_signed()
}
