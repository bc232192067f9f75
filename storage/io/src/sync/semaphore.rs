//! A counting semaphore, first come first served.

use std::rc::Rc;

/// `total` permits. Clones share them.
#[derive(Clone)]
pub struct Semaphore(Rc<()>);

impl Semaphore {
    pub fn new(_total: u64) -> Semaphore {
        unimplemented!()
    }
    /// Waits in line for `n` permits. More than the total is taken as the total: an oversized user runs alone instead of never.
    pub async fn acquire(&self, _n: u64) -> Permit {
        unimplemented!()
    }
    /// `n` permits if they are free and nobody waits.
    pub fn try_acquire(&self, _n: u64) -> Option<Permit> {
        unimplemented!()
    }
    pub fn available(&self) -> u64 {
        unimplemented!()
    }
    pub fn total(&self) -> u64 {
        unimplemented!()
    }
}

/// Permits held; given back on drop.
pub struct Permit(Semaphore);

impl Permit {
    /// How many permits are held.
    pub fn count(&self) -> u64 {
        unimplemented!()
    }
    /// Takes `n` of the held permits off into a permit of their own.
    pub fn split(&mut self, _n: u64) -> Permit {
        unimplemented!()
    }
    /// Gives `n` of the held permits back now.
    pub fn release(&mut self, _n: u64) {
        unimplemented!()
    }
}
