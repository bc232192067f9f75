//! One waiter for many places: what has news is noted once, and looked through in the order in which it came.
//!
//! An [`Event`](super::Event) has a waiter registered for each wait; who follows a hundred places and waits a thousand
//! times a second stays registered here instead.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A place that has news now and then.
#[derive(Default)]
pub struct Source {
    followers: Rc<RefCell<Slab<Mark>>>,
}

impl Source {
    /// `mark` is put into its inbox whenever there is news, until the [`Following`] is dropped.
    pub fn follow(&self, mark: &Mark) -> Following {
        let slot = self.followers.borrow_mut().insert(mark.clone());
        Following { followers: Rc::clone(&self.followers), slot }
    }

    /// There is news.
    pub fn tell(&self) {
        for (_, mark) in &*self.followers.borrow() {
            mark.put();
            if mark.inner.inbox.armed.replace(false) {
                (mark.inner.inbox.bell)();
            }
        }
    }
}

/// Keeps a mark with a source.
#[must_use = "dropped, it follows no more"]
pub struct Following {
    followers: Rc<RefCell<Slab<Mark>>>,
    slot: usize,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.followers.borrow_mut().remove(self.slot);
    }
}

/// Holds the marks of what is to be looked at, each at most once.
pub struct Inbox {
    shared: Rc<Shared>,
}

struct Shared {
    numbers: RefCell<Vec<u32>>,
    armed: Cell<bool>,
    bell: Box<dyn Fn()>,
}

impl Inbox {
    /// `bell` is rung by the first news after each [`Inbox::arm`]. It must not come back to the source it is rung by.
    pub fn new(bell: impl Fn() + 'static) -> Inbox {
        Inbox {
            shared: Rc::new(Shared {
                numbers: RefCell::default(),
                armed: Cell::new(false),
                bell: Box::new(bell),
            }),
        }
    }

    pub fn arm(&self) {
        self.shared.armed.set(true);
    }

    pub fn disarm(&self) {
        self.shared.armed.set(false);
    }

    /// A mark that bears `number`.
    pub fn mark(&self, number: u32) -> Mark {
        let inbox = Rc::clone(&self.shared);
        Mark { inner: Rc::new(Inner { inbox, number, is_in: Cell::new(false) }) }
    }

    /// Numbers of the marks that were put in, the first first. Each is to be asked by [`Mark::take`] whether it still
    /// counts: a number may be that of a former mark.
    pub fn take(&self) -> Vec<u32> {
        self.shared.numbers.take()
    }
}

/// One place's standing in an inbox.
#[derive(Clone)]
pub struct Mark {
    inner: Rc<Inner>,
}

struct Inner {
    inbox: Rc<Shared>,
    number: u32,
    is_in: Cell<bool>,
}

impl Mark {
    /// Puts it into its inbox, behind what is there, unless it is in already.
    pub fn put(&self) {
        if !self.inner.is_in.replace(true) {
            self.inner.inbox.numbers.borrow_mut().push(self.inner.number);
        }
    }

    /// Takes it out; whether it was in.
    pub fn take(&self) -> bool {
        self.inner.is_in.replace(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_noted_once_and_in_order() {
        let rung = Rc::new(Cell::new(0));
        let bell = Rc::clone(&rung);
        let inbox = Inbox::new(move || bell.set(bell.get() + 1));
        let sources: Vec<Source> = (0..3).map(|_| Source::default()).collect();
        let marks: Vec<Mark> = (0..3).map(|number| inbox.mark(number)).collect();
        let mut following: Vec<Following> = sources.iter().zip(&marks).map(|(s, m)| s.follow(m)).collect();

        sources[2].tell();
        sources[0].tell();
        sources[2].tell();
        assert_eq!((inbox.take(), rung.get()), (vec![2, 0], 0), "nobody asked for the bell");
        assert!(marks[2].take() && !marks[2].take() && !marks[1].take());

        // What is still in and has news again rings too.
        inbox.arm();
        sources[0].tell();
        sources[0].tell();
        assert_eq!((inbox.take(), rung.get()), (vec![], 1));
        inbox.arm();
        inbox.disarm();
        sources[2].tell();
        assert_eq!((inbox.take(), rung.get()), (vec![2], 1));

        following.clear();
        for mark in &marks {
            mark.take();
        }
        sources.iter().for_each(Source::tell);
        assert_eq!(inbox.take(), []);
    }
}
