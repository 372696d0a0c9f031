//! A panic while outside data is read must cost one file its verdict, and nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Marks where a [`contained`] body calls back to its caller: a panic from there is the caller's own and goes through.
#[derive(Debug, Default)]
pub struct Callback {
    running: bool,
}

impl Callback {
    /// Runs what belongs to the caller.
    pub fn run<R>(&mut self, call: impl FnOnce() -> R) -> R {
        self.running = true;
        let result = call();
        self.running = false;
        result
    }
}

/// Runs `body`; its panic becomes an error with the panic's message. Whatever `body` was working on is not to be used after that.
///
/// # Errors
/// The message of a panic.
pub fn contained<R>(body: impl FnOnce(&mut Callback) -> R) -> Result<R, String> {
    let mut callback = Callback::default();
    catch_unwind(AssertUnwindSafe(|| body(&mut callback))).map_err(|panic| {
        if callback.running {
            resume_unwind(panic)
        }
        panic_message(&*panic)
    })
}

/// What a panic says.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contained(|_| 7), Ok(7));
        let error = contained::<()>(|_| panic!("page {} is odd", 3));
        assert_eq!(error, Err("page 3 is odd".to_owned()));
    }

    #[test]
    fn a_panic_of_the_caller_goes_through() {
        let outcome = catch_unwind(|| contained(|callback| callback.run(|| panic!("cancelled"))));
        assert_eq!(panic_message(&*outcome.unwrap_err()), "cancelled");
    }
}
