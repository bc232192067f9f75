//! Handing each core of a process what is its own.

use std::sync::Arc;

#[expect(
    clippy::disallowed_types,
    reason = "taken once per core at start-up, before there is data to be held up"
)]
type Lock<T> = std::sync::Mutex<T>;

/// One value for each core, taken there once: mesh seats, mailbox receivers, recovered state. Every core's main is a
/// clone of one closure; this is what that closure carries.
///
/// ```
/// use corelog_io::{PerCore, mesh, sim::Sim};
///
/// let seats = PerCore::new(mesh::<u32>(2, 8));
/// let sim = Sim::new(1);
/// sim.process("broker").start(2, move |ctx| {
///     let seat = seats.take(ctx.core);
///     async move {
///         let (senders, mut receiver) = seat.join(ctx.core).await;
///         senders.send(1 - ctx.core, 7).await.unwrap();
///         assert_eq!(receiver.recv().await, Some((1 - ctx.core, 7)));
///     }
/// });
/// assert!(sim.run_until_idle(1000));
/// ```
pub struct PerCore<T> {
    values: Arc<Vec<Lock<Option<T>>>>,
}

impl<T> PerCore<T> {
    /// `values[i]` is for core `i`.
    pub fn new(values: Vec<T>) -> PerCore<T> {
        PerCore { values: Arc::new(values.into_iter().map(|value| Lock::new(Some(value))).collect()) }
    }

    /// Core `core`'s value. Panics if there is none, or if it was taken before.
    pub fn take(&self, core: usize) -> T {
        let mut value = self.values[core].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        value.take().unwrap_or_else(|| panic!("core {core}'s value was taken before"))
    }
}

impl<T> Clone for PerCore<T> {
    fn clone(&self) -> Self {
        PerCore { values: Arc::clone(&self.values) }
    }
}
