//! Trying again.
//!
//! Policy: what a store refuses is tried again unless the refusal proves that it will stay: a
//! backup of hours must not end because of one odd answer. Pauses grow and are jittered; the
//! patience ends it; a raised [`Cancel`] ends it at once.

use std::time::{Duration, Instant};

use super::options::RetryOptions;
use crate::{Cancel, Error, Reporter, Result};

/// How often something is tried of which trying again is unlikely to help.
const DOUBTFUL_TRIES: u32 = 4;
/// Pauses from this on are worth telling.
const TELL: Duration = Duration::from_secs(1);
/// Within this time a raised flag ends a pause.
const GLANCE: Duration = Duration::from_millis(50);

/// What a failed try says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// The next one fails, too.
    Permanent,
    /// It may be worth a few tries.
    Doubtful,
    /// It will pass.
    Transient,
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: Error,
    pub(super) outlook: Outlook,
    /// The store asked not to come back earlier.
    pub(super) wait: Option<Duration>,
    /// The store does not know what a request like this asks for.
    #[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "only requests can be unknown"))]
    pub(super) is_unknown_request: bool,
}

impl Refusal {
    pub(super) fn new(outlook: Outlook, error: Error) -> Self {
        Self { error, outlook, wait: None, is_unknown_request: false }
    }

    pub(super) fn permanent(error: Error) -> Self {
        Self::new(Outlook::Permanent, error)
    }
}

/// Interruptions and the like come as plain errors; trying again helps nobody.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::permanent(error)
    }
}

/// Tries until it works, proves hopeless, or patience ends. `attempt` gets the number of tries
/// that came before.
pub(super) fn retry<T>(
    options: &RetryOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
    doing: &dyn Fn() -> String,
    mut attempt: impl FnMut(u32) -> Result<T, Refusal>,
) -> Result<T> {
    let began = Instant::now();
    let mut tries = 0;
    let mut spent = Duration::ZERO;
    loop {
        cancel.check()?;
        let tried = Instant::now();
        let refusal = match attempt(tries) {
            Ok(value) => return Ok(value),
            Err(refusal) => refusal,
        };
        tries += 1;
        spent += tried.elapsed().min(options.stall);
        let last = match refusal.outlook {
            Outlook::Permanent => true,
            Outlook::Doubtful => tries >= DOUBTFUL_TRIES,
            Outlook::Transient => false,
        };
        let pause =
            pause(options, tries).max(refusal.wait.unwrap_or_default().min(options.pause_max));
        if last || spent + pause > options.patience {
            let doing = doing();
            return Err(match tries {
                1 => refusal.error.context(doing),
                _ => refusal.error.context(format!(
                    "{doing}: given up after {tries} tries in {:.1} s",
                    began.elapsed().as_secs_f64()
                )),
            });
        }
        if pause >= TELL {
            reporter.warn(format!(
                "{}: {}; trying again in {:.0} s",
                doing(),
                refusal.error,
                pause.as_secs_f64()
            ));
        }
        sleep(pause, cancel)?;
        spent += pause;
    }
}

/// The pause behind that many tries: between a half and the whole of what the doubling says.
fn pause(options: &RetryOptions, tries: u32) -> Duration {
    let doubled = options.pause.saturating_mul(1_u32.checked_shl(tries - 1).unwrap_or(u32::MAX));
    let whole = doubled.min(options.pause_max);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Sleeps, unless the flag is raised.
pub(super) fn sleep(pause: Duration, cancel: &Cancel) -> Result<()> {
    let until = Instant::now() + pause;
    loop {
        cancel.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(GLANCE));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ErrorKind;
    use crate::report::Silent;

    fn quick() -> RetryOptions {
        RetryOptions {
            patience: Duration::from_millis(200),
            pause: Duration::from_millis(1),
            pause_max: Duration::from_millis(20),
            ..RetryOptions::default()
        }
    }

    fn tries(outlook: Outlook) -> (u32, Error) {
        let mut tries = 0;
        let error = retry::<()>(&quick(), &Cancel::new(), &Silent, &|| "testing".into(), |_| {
            tries += 1;
            Err(Refusal::new(outlook, Error::new(ErrorKind::Store, "no")))
        });
        (tries, error.unwrap_err())
    }

    #[test]
    fn what_is_permanent_is_tried_once_and_what_passes_until_patience_ends() {
        let (once, error) = tries(Outlook::Permanent);
        assert_eq!((once, error.to_string()), (1, "testing: no".to_owned()));
        assert_eq!(tries(Outlook::Doubtful).0, DOUBTFUL_TRIES);
        let (often, error) = tries(Outlook::Transient);
        assert!((8..40).contains(&often), "{often}");
        assert!(error.to_string().contains(&format!("given up after {often} tries")), "{error}");
        assert_eq!(error.kind(), ErrorKind::Store);
    }

    #[test]
    fn a_try_that_moved_bytes_for_long_is_not_the_last() {
        let options = RetryOptions { stall: Duration::from_millis(5), ..quick() };
        let done = retry(&options, &Cancel::new(), &Silent, &String::new, |before| {
            std::thread::sleep(Duration::from_millis(150));
            match before {
                3 => Ok(()),
                _ => Err(Refusal::new(Outlook::Transient, Error::new(ErrorKind::Store, "cut off"))),
            }
        });
        assert!(done.is_ok(), "{done:?}");
    }

    #[test]
    fn a_pause_ends_when_the_user_interrupts() {
        let cancel = Cancel::new();
        let began = Instant::now();
        let options = RetryOptions { pause: Duration::from_secs(60), ..RetryOptions::default() };
        let options = RetryOptions { pause_max: Duration::from_secs(60), ..options };
        let error = retry::<()>(&options, &cancel, &Silent, &String::new, |_| {
            cancel.cancel();
            Err(Refusal::new(Outlook::Transient, Error::new(ErrorKind::Store, "no")))
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Interrupted);
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let options = RetryOptions::default();
        for tries in 1..100 {
            let pause = pause(&options, tries);
            assert!(pause >= options.pause / 2 && pause <= options.pause_max);
            assert!(tries < 10 || pause >= options.pause_max / 2);
        }
    }
}
