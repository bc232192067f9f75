//! Wakes one waiter, or lets the next one pass.

/// Holds at most one permit: `notify_one` hands it to the longest waiter, or keeps it for the next.
#[derive(Default)]
pub struct Notify(());

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }
    pub fn notify_one(&self) {
        unimplemented!()
    }
    pub async fn notified(&self) {
        unimplemented!()
    }
}
