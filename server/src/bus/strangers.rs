//! Connections whose other side has not shown yet that it belongs here: few, and not for long.

use super::MAX_STRANGERS;
use super::refusal::Refusal;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// All connections that were accepted and have not sent a valid frame.
#[derive(Default)]
pub(super) struct Strangers {
    all: RefCell<VecDeque<Rc<Stranger>>>,
}

/// One of them.
#[derive(Default)]
pub(super) struct Stranger {
    is_proven: Cell<bool>,
    is_crowded_out: Cell<bool>,
    changed: Notify,
}

impl Strangers {
    /// Takes one more. Beyond `MAX_STRANGERS` the oldest has to go: a member needs a round trip or two to show who it
    /// is, and somebody who only keeps connections open can't keep members out.
    pub(super) fn admit(&self) -> Rc<Stranger> {
        let stranger = Rc::<Stranger>::default();
        let mut all = self.all.borrow_mut();
        all.push_back(Rc::clone(&stranger));
        if all.len() > MAX_STRANGERS
            && let Some(oldest) = all.pop_front()
        {
            oldest.is_crowded_out.set(true);
            oldest.changed.notify_one();
        }
        stranger
    }

    /// Forgets one whose connection has ended or that has become known.
    pub(super) fn dismiss(&self, stranger: &Rc<Stranger>) {
        self.all.borrow_mut().retain(|other| !Rc::ptr_eq(other, stranger));
    }
}

impl Stranger {
    /// Notes that it belongs here.
    pub(super) fn prove(&self) {
        self.is_proven.set(true);
    }

    /// Returns when it has to go; never, once it has shown who it is.
    pub(super) async fn expire(&self, limit: Duration) -> Refusal {
        let is_in_time = tokio::time::timeout(limit, self.changed.notified()).await.is_ok();
        if self.is_proven.get() {
            return std::future::pending().await;
        }
        if is_in_time && self.is_crowded_out.get() { Refusal::Crowded } else { Refusal::TooSlow }
    }
}
