//! Whether every client is answered: each has a pulse, which beats with every answer that it gets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// One client's.
pub struct Pulse {
    name: String,
    /// The present one, and that of the last answer.
    era: Rc<Cell<u64>>,
    beat_in: Cell<u64>,
    has_ended: Cell<bool>,
}

impl Pulse {
    pub fn beat(&self) {
        self.beat_in.set(self.era.get());
    }

    /// The client has done what it had to.
    pub fn end(&self) {
        self.has_ended.set(true);
    }
}

/// All clients'.
#[derive(Default)]
pub struct Pulses {
    era: Rc<Cell<u64>>,
    pulses: RefCell<Vec<Rc<Pulse>>>,
}

impl Pulses {
    /// A client whose answers do not matter.
    pub fn unwatched(&self) -> Rc<Pulse> {
        let (era, name) = (self.era.clone(), String::new());
        Rc::new(Pulse { name, era, beat_in: Cell::default(), has_ended: Cell::default() })
    }

    pub fn watched(&self, name: &str) -> Rc<Pulse> {
        let mut pulses = self.pulses.borrow_mut();
        let name = format!("{name} ({})", pulses.len());
        let (era, beat_in, has_ended) = (self.era.clone(), Cell::default(), Cell::default());
        pulses.push(Rc::new(Pulse { name, era, beat_in, has_ended }));
        pulses[pulses.len() - 1].clone()
    }

    /// Whoever has been answered before is to be answered again.
    pub fn begin_era(&self) {
        self.era.set(self.era.get() + 1);
    }

    /// Who has not ended.
    pub fn working(&self) -> Vec<String> {
        let pulses = self.pulses.borrow();
        pulses.iter().filter(|pulse| !pulse.has_ended.get()).map(|pulse| pulse.name.clone()).collect()
    }

    /// Who has not been answered since.
    pub fn missing(&self) -> Vec<String> {
        let pulses = self.pulses.borrow();
        let missing =
            pulses.iter().filter(|pulse| !pulse.has_ended.get() && pulse.beat_in.get() < self.era.get());
        missing.map(|pulse| pulse.name.clone()).collect()
    }
}
