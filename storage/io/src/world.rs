//! Which world the calling thread is in.

use crate::{real, sim};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone)]
pub(crate) enum World {
    Real(Rc<real::Core>),
    Sim(Rc<sim::Context>),
}

thread_local! {
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

const NO_CORE: &str = "called outside a core: run it under run_glommio or a Sim";

/// The world of the calling core, if the thread is one.
pub(crate) fn try_current() -> Option<World> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The world of the calling core. Panics outside a core: the caller reached for a core's service from elsewhere.
pub(crate) fn current() -> World {
    try_current().expect(NO_CORE)
}

/// What `look` sees in the world of the calling core, where no handle on it is to be kept. Panics as [`current`] does.
pub(crate) fn with_current<T>(look: impl FnOnce(&World) -> T) -> T {
    CURRENT.with_borrow(|current| look(current.as_ref().expect(NO_CORE)))
}

/// Makes `world` the calling thread's until it ends.
pub(crate) fn settle(world: World) {
    CURRENT.with(|current| current.replace(Some(world)));
}

/// Makes `world` current until the guard is dropped.
pub(crate) fn enter(world: World) -> Entered {
    Entered { before: CURRENT.with(|current| current.replace(Some(world))) }
}

#[must_use]
pub(crate) struct Entered {
    before: Option<World>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        let left = CURRENT.with(|current| current.replace(before));
        drop(left);
    }
}
