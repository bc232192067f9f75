//! How the rest of the broker has metadata changed, on whatever shard it is.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::sync::oneshot;
use corelog_io::{Instant, TrySendError};
use corelog_wire::ErrorCode;

use super::CONTROLLER_SHARD;
use super::change::{Change, ChangeError};
use super::task::{CHANGES_WAITING_MAX, ControllerHandle, Submitted};
use super::view::View;
use crate::shard::Shard;

/// What whoever asks for a change wants of it.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Only to know what would come of it.
    pub validate_only: bool,
    /// How long it is waited for; the change goes on all the same.
    wait_until: Option<Instant>,
}

impl Terms {
    /// To be made, and waited for however long it takes.
    pub const MAKE: Terms = Terms { validate_only: false, wait_until: None };

    /// As a request has it. Without a time, or with one that is over before it begins (some clients mean "do not wait for
    /// all brokers" by it), it is waited for as long as it takes.
    pub fn new(validate_only: bool, timeout_ms: Option<i32>) -> Terms {
        let timeout_ms = timeout_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
        let wait_until = timeout_ms.map(|ms| corelog_io::now() + Duration::from_millis(ms));
        Terms { validate_only, wait_until }
    }
}

impl ControllerHandle {
    /// Puts a change in line. What is returned waits for its answer, and may be dropped.
    fn submit(
        &self,
        change: Change,
        validate_only: bool,
    ) -> Result<impl Future<Output = Result<Arc<View>, ChangeError>> + use<>, ChangeError> {
        let (answer, answered) = oneshot();
        self.queue.try_send(Submitted::Change { change, validate_only, answer }).map_err(|refused| match refused {
            TrySendError::Disconnected(_) => stopping(),
            TrySendError::Full(_) => ChangeError::new(
                ErrorCode::REQUEST_TIMED_OUT,
                format!(
                    "{CHANGES_WAITING_MAX} changes of metadata wait for the controller, which is as many as may: its disk \
                     is slow. Try again later"
                ),
            ),
        })?;
        Ok(async move { answered.await.unwrap_or_else(|_| Err(stopping())) })
    }
}

impl Shard {
    /// Has the controller carry out `change`. The view that holds it, installed on every shard by then; where it is only
    /// validated, what it would be. Whoever gives up waiting, the change goes on.
    pub async fn change(self: &Rc<Shard>, change: Change, terms: Terms) -> Result<Arc<View>, ChangeError> {
        let Terms { validate_only, wait_until } = terms;
        let change = change.detached();
        let asked = async {
            let asked = self.ask(CONTROLLER_SHARD, move |shard| async move {
                shard.controller()?.submit(change, validate_only)?.await
            });
            asked.await.unwrap_or_else(|_gone| Err(stopping()))
        };
        let Some(until) = wait_until else { return asked.await };
        let left = until.since(corelog_io::now());
        if left.is_zero() {
            return Err(ChangeError::new(ErrorCode::REQUEST_TIMED_OUT, late("was not begun")));
        }
        let given_up = |_| Err(ChangeError::in_doubt(ErrorCode::REQUEST_TIMED_OUT, late("goes on")));
        corelog_io::timeout(left, asked).await.unwrap_or_else(given_up)
    }
}

/// The process ends: nobody knows whether the change was still made.
fn stopping() -> ChangeError {
    ChangeError::in_doubt(ErrorCode::BROKER_NOT_AVAILABLE, "the controller is shutting down")
}

fn late(change: &str) -> String {
    format!("The request's time (its timeout) is over; the change {change}.")
}
