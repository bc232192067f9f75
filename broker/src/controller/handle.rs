//! How the rest of the broker has metadata changed, on whatever shard it is.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::sync::oneshot;
use corelog_io::{Instant, TrySendError};
use corelog_wire::ErrorCode;

use super::CONTROLLER_SHARD;
use super::change::{Change, ChangeError};
use super::forward;
use super::image::Image;
use super::member::{Group, Leader};
use super::task::{CHANGES_WAITING_MAX, ControllerHandle, Submitted};
use super::view::View;
use crate::shard::Shard;

/// What whoever asks for a change wants of it.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Only to know what would come of it.
    pub validate_only: bool,
    /// How long it is waited for; the change goes on all the same.
    pub(super) wait_until: Option<Instant>,
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

/// What a change has come to.
#[derive(Debug, Clone)]
pub struct Made {
    /// One that holds the change, installed on every shard; where it was only validated, what it would be.
    pub view: Arc<View>,
    /// As the change has left it, whatever came later.
    pub next_producer_id: i64,
}

impl ControllerHandle {
    /// The group of the controller's log is led otherwise, as its replica here knows it.
    pub fn led(&self) {
        let Some(member) = &self.member else { return };
        member.news.notify_all();
        // With each thing that it takes from a full queue the controller looks whether it leads.
        let _ = self.queue.try_send(Submitted::News);
    }

    /// Who leads the group of the controller's log, as far as this broker knows.
    pub fn leader(&self, image: &Image) -> Leader {
        self.member.as_ref().map_or(Leader::This, |member| member.leader(image))
    }

    /// Whether this broker decides.
    pub fn decides(&self) -> bool {
        self.member.as_ref().is_none_or(|member| member.leads().is_some())
    }

    /// That of the controller's log; `None`: this broker is alone with it.
    pub fn group(&self) -> Option<&Group> {
        self.member.as_ref().map(|member| &member.group)
    }

    /// Puts a change in line. What is returned waits for its answer, and may be dropped.
    pub(super) fn submit(
        &self,
        change: Change,
        validate_only: bool,
    ) -> Result<impl Future<Output = Result<Made, ChangeError>> + use<>, ChangeError> {
        let (answer, answered) = oneshot();
        self.queue.try_send(Submitted::Change { change, validate_only, answer }).map_err(|refused| {
            match refused {
                TrySendError::Disconnected(_) => stopping(),
                TrySendError::Full(_) => too_many(),
            }
        })?;
        Ok(async move {
            let view = answered.await.unwrap_or_else(|_| Err(stopping()))?;
            Ok(Made { next_producer_id: view.image.next_producer_id, view })
        })
    }
}

impl Shard {
    /// Has the controller carry out `change`, on whichever broker it is; where it is only to be validated, by what is
    /// known here. Whoever gives up waiting, the change goes on.
    pub async fn change(self: &Rc<Shard>, change: Change, terms: Terms) -> Result<Made, ChangeError> {
        let Terms { validate_only, wait_until } = terms;
        let change = change.detached();
        let asked = async {
            let asked = self.ask(CONTROLLER_SHARD, move |shard| async move {
                let controller = shard.controller()?;
                match controller.member.clone().filter(|_| !validate_only) {
                    None => controller.submit(change, validate_only)?.await,
                    Some(member) => forward::change(&shard, &member, change, wait_until).await,
                }
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

pub(super) fn too_many() -> ChangeError {
    ChangeError::new(
        ErrorCode::REQUEST_TIMED_OUT,
        format!(
            "{CHANGES_WAITING_MAX} changes of metadata wait for the controller, which is as many as may: its disk is slow. Try \
             again later"
        ),
    )
}

/// The process ends: nobody knows whether the change was still made.
fn stopping() -> ChangeError {
    ChangeError::in_doubt(ErrorCode::BROKER_NOT_AVAILABLE, "the controller is shutting down")
}

pub(super) fn late(change: &str) -> String {
    format!("The request's time (its timeout) is over; the change {change}.")
}
