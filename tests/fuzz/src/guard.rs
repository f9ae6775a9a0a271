//! Runs one input: a panic becomes a sentence, and so does taking too long. What counts is CPU time:
//! a busy machine is no fault of an input. Used by `main` and by the replay.

use std::cell::RefCell;
use std::panic;
use std::time::Duration;

use crate::Target;
use crate::features::Features;

/// One of 32 KiB takes a few milliseconds with optimisation; what takes this long grows faster than its length.
pub const TIME_LIMIT: Duration = Duration::from_secs(1);

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics are told by [`run`], and not on standard error.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        SAID.with(|said| *said.borrow_mut() = info.to_string());
    }));
}

/// Why an input failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The place of the panic, or that it took too long: one fault has one.
    pub place: String,
    /// All of it.
    pub text: String,
}

/// What became of an input.
#[derive(Debug)]
pub struct Outcome {
    /// CPU time of this thread.
    pub took: Duration,
    /// What it showed, or why it failed.
    pub result: Result<Features, Failure>,
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec that lives as long as the call, and the clock exists everywhere.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs it. It fails when it panics, or takes more CPU time than `limit`.
pub fn run(target: Target, input: &[u8], limit: Duration) -> Outcome {
    let started = cpu_time();
    let result = panic::catch_unwind(|| {
        let mut features = Features::default();
        target.run(input, &mut features);
        features
    });
    let took = cpu_time().saturating_sub(started);
    let result = match result {
        Ok(_) if took > limit => {
            Err(Failure { place: "too slow".to_owned(), text: format!("took {took:?}, more than {limit:?}") })
        }
        Ok(features) => Ok(features),
        Err(payload) => {
            let literal = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let payload = payload.downcast_ref::<String>().cloned().or(literal).unwrap_or_default();
            let text = SAID.with(|said| if said.borrow().is_empty() { payload } else { said.take() });
            Err(Failure { place: text.lines().next().unwrap_or_default().to_owned(), text })
        }
    };
    Outcome { took, result }
}
