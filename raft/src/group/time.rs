//! What time does to a group: elections, heartbeats, rest.

use super::*;

/// A replica's deadlines. Nothing counts ticks one by one: the driver calls when the nearest one has come.
pub(super) struct Clock {
    pub now: Tick,
    pub timing: Timing,
    random: Random,
    /// How long this follower waits for its leader: drawn anew for each term and role.
    patience: u64,
    pub election_due: Tick,
    /// Until then this replica votes for nobody, unless the leader itself wants it: what its leader's lease stands on. A
    /// replica that opens doesn't know what it promised before, and keeps to it all the same.
    pub promised_until: Tick,
    /// The latest moment, on the leader's clock, of a heartbeat in this term.
    pub leader_sent: Tick,
    pub heartbeat_due: Tick,
    quorum_due: Tick,
    /// A leader that hands over gives up its lease until then, and leads a new term after if nobody else does.
    pub transfer_due: Option<Tick>,
    /// When the group last had something to say.
    pub busy: Tick,
}

impl Clock {
    pub fn new(timing: Timing, random: Random, now: Tick) -> Clock {
        let mut clock = Clock {
            now,
            timing,
            random,
            patience: 0,
            election_due: now,
            promised_until: now.after(timing.election),
            leader_sent: Tick(0),
            heartbeat_due: now,
            quorum_due: now,
            transfer_due: None,
            busy: now,
        };
        clock.draw_patience();
        clock
    }

    fn draw_patience(&mut self) {
        self.patience = self.timing.election + self.random.below(self.timing.election);
        self.election_due = self.now.after(self.patience);
    }

    pub fn role_changed(&mut self, role: Role) {
        self.draw_patience();
        self.transfer_due = None;
        self.busy = self.now;
        if role == Role::Leader {
            self.heartbeat_due = self.now;
            self.quorum_due = self.now.after(self.timing.election);
        }
    }

    pub fn heard_leader(&mut self) {
        self.promised_until = self.promised_until.max(self.now.after(self.timing.election));
        self.election_due = self.now.after(self.patience);
    }
}

impl Group {
    /// When [`Group::tick`] has something to do. `None`: not until something comes.
    pub fn deadline(&self) -> Option<Tick> {
        if self.resting || self.removed {
            return None;
        }
        match self.leadership.role {
            Role::Leader if self.core.followers().next().is_none() => None,
            Role::Leader => {
                let due = self.clock.heartbeat_due.min(self.clock.quorum_due);
                Some(self.clock.transfer_due.map_or(due, |transfer| transfer.min(due)))
            }
            _ => Some(self.clock.election_due),
        }
    }

    /// Whether [`Group::tick`] would begin an election.
    pub fn would_campaign(&self, now: Tick) -> bool {
        self.leadership.role != Role::Leader && self.deadline().is_some_and(|due| due <= now)
    }

    pub fn tick(&mut self, now: Tick) -> Result<(), Violation> {
        self.clock.now = now;
        if self.resting || self.removed {
            return Ok(());
        }
        if self.leadership.role == Role::Leader {
            self.tick_leader();
        } else if now >= self.clock.election_due {
            if self.can_campaign() {
                self.core.campaign(false);
            } else if !self.core.can_be_elected() {
                self.ask_whether_removed();
            }
            self.clock.draw_patience();
        }
        self.absorb(Payloads::None)
    }

    /// A replica that is no voter and hears no leader may have been removed without a word that reached it. It asks for
    /// votes that it would not count: who surely leads a group without it says so.
    fn ask_whether_removed(&mut self) {
        if self.core.term() == crate::core::TERM_MAX {
            return;
        }
        let (from, committed) = (self.id, self.core.committed());
        let term = Term(self.core.term().0 + 1);
        let (end, terms) = (self.next_index(), self.core.terms());
        let last_term = terms.before(end).unwrap_or_default();
        let vote = Vote {
            pre: true,
            forced: false,
            end,
            last_term,
            committed,
            committed_term: terms.before(committed).unwrap_or_default(),
        };
        for to in self.membership().replicas().into_iter().filter(|&to| to != from) {
            let asked = Message { from, to, term, body: Body::Vote(vote) };
            self.gate.say(Said::Message(asked), self.core.hard_state());
        }
    }

    fn tick_leader(&mut self) {
        let now = self.clock.now;
        if now >= self.clock.quorum_due {
            self.clock.quorum_due = now.after(self.clock.timing.election);
            self.core.check_quorum();
        }
        let (late, waiting) = self.offers.drain(..).partition(|&(_, due)| now >= due);
        self.offers = waiting;
        late.into_iter().for_each(|(follower, _)| self.core.snapshot_failed(follower));
        if self.core.role() == Role::Leader && self.clock.transfer_due.is_some_and(|due| now >= due) {
            self.end_transfer();
        } else if self.core.role() == Role::Leader && now >= self.clock.heartbeat_due {
            self.clock.heartbeat_due = now.after(self.clock.timing.heartbeat);
            self.send_heartbeats();
        }
    }

    fn send_heartbeats(&mut self) {
        let now = self.clock.now;
        let rest = now.since(self.clock.busy) >= self.clock.timing.rest && self.may_rest();
        let (from, term, committed) = (self.id, self.core.term(), self.core.committed());
        let beats: Vec<_> = self
            .core
            .followers()
            .map(|follower| {
                let beat = Heartbeat { committed: follower.matched.min(committed), sent: now, rest };
                Message { from, to: follower.replica, term, body: Body::Heartbeat(beat) }
            })
            .collect();
        for beat in beats {
            self.gate.say(Said::Message(beat), self.core.hard_state());
        }
    }

    /// All that was proposed is durable, committed and known to be, here.
    pub(super) fn all_is_said(&self) -> bool {
        self.gate.all_durable() && self.core.committed() == self.next_index() && self.memberships.len() == 1
    }

    /// Who can't be reached is not waited for, as long as a majority can: its peer's return wakes the group.
    fn may_rest(&self) -> bool {
        let next = self.next_index();
        let has_all = |follower: &Progress| follower.matched == next && follower.committed == next;
        self.all_is_said()
            && self.core.committed_in_term()
            && self.clock.transfer_due.is_none()
            && !self.membership().is_joint()
            && self.membership().quorum(|replica| replica == self.id || !self.away.contains(&replica))
                == Some(true)
            && self.present_followers().all(|follower| has_all(&follower))
    }

    fn present_followers(&self) -> impl Iterator<Item = Progress> {
        self.core.followers().filter(|follower| !self.away.contains(&follower.replica))
    }

    pub(super) fn rest_if_all_agree(&mut self) {
        let leads = self.leadership.role == Role::Leader;
        if leads
            && self.may_rest()
            && self.present_followers().all(|follower| self.lease.rests(follower.replica))
        {
            self.resting = true;
            self.core.shrink();
        }
    }

    /// Replicas that can't be reached now: to be told of a leader before its time comes.
    pub fn set_away(&mut self, away: Vec<ReplicaId>) {
        self.away = away;
    }

    /// What this replica said of its rest, or will, may be lost, or it came back. A leader asks it; `heard` as in
    /// [`Group::wake_up`].
    pub fn doubt(&mut self, now: Tick, replica: ReplicaId, heard: Tick) {
        self.away.retain(|&away| away != replica);
        self.lease.doubt(replica);
        if self.leadership.role == Role::Leader || self.leadership.leader == Some(replica) {
            self.wake_up(now, heard);
        }
    }

    /// The last words of this replica, to those that may rest with it: they are not to wait for its leadership, nor to
    /// count on its promise.
    pub fn farewell(&self) -> Vec<Message> {
        let said = |to, body| Message { from: self.id, to, term: self.core.term(), body };
        let beat = Heartbeat { committed: RaftIndex(0), sent: Tick(0), rest: false };
        match self.leadership {
            Leadership { role: Role::Leader, .. } => {
                let followers = self.core.followers();
                followers.map(|follower| said(follower.replica, Body::Heartbeat(beat))).collect()
            }
            Leadership { leader: Some(leader), .. } if self.resting => {
                let answer = HeartbeatAnswer { rest: false, ..self.echo };
                vec![said(leader, Body::HeartbeatAnswer(answer))]
            }
            _ => Vec::new(),
        }
    }

    /// There is something to say, or to hear.
    pub(super) fn wake(&mut self) {
        self.clock.busy = self.clock.now;
        if self.leadership.role == Role::Leader {
            self.lease.wake();
        }
        if !std::mem::take(&mut self.resting) {
            return;
        }
        self.output.messages.iter_mut().for_each(Message::take_back_rest);
        if self.leadership.role == Role::Leader {
            self.clock.heartbeat_due = self.clock.now;
            self.clock.quorum_due = self.clock.now.after(self.clock.timing.election);
        } else {
            self.clock.draw_patience();
        }
    }

    /// Ends a rest. `heard`: when the leader's peer was last heard, by which a follower at rest knew that it lives.
    pub fn wake_up(&mut self, now: Tick, heard: Tick) {
        if !self.resting {
            return;
        }
        self.clock.now = now;
        self.hear_peer(heard);
        self.wake();
        // The wait is over already: what is left is that not all stand at once.
        let wait = self.clock.random.below(self.clock.timing.election);
        self.clock.election_due = self.clock.promised_until.max(now).after(wait);
    }

    /// A follower at rest: its leader's peer was heard.
    fn hear_peer(&mut self, heard: Tick) {
        let promise = heard.after(self.clock.timing.election);
        self.clock.promised_until = self.clock.promised_until.max(promise);
    }

    /// What a follower at rest keeps to, told before it hears a message: its leader's peer was heard at `heard`.
    pub fn keep_promise(&mut self, heard: Tick) {
        if self.resting && self.leadership.role != Role::Leader {
            self.hear_peer(heard);
        }
    }

    pub(super) fn can_campaign(&self) -> bool {
        // Its log and vote are durable before it asks for votes with them, and no change of who may vote is open.
        self.core.can_be_elected()
            && self.gate.all_durable()
            && self.core.applied() == self.core.committed()
            && self.core.term() < crate::core::TERM_MAX
            && !self.removed
    }

    pub(super) fn stands_alone(&self) -> bool {
        self.membership().voters == [self.id] && self.membership().outgoing.is_empty()
    }

    /// Stands for election now, unless a leader was heard too lately.
    pub fn campaign(&mut self, now: Tick) -> Result<(), Refused> {
        self.clock.now = now;
        if self.leadership.role == Role::Leader {
            return Ok(());
        }
        if !self.can_campaign() {
            return Err(Refused::NotElectable);
        }
        if (now < self.clock.promised_until || self.resting) && !self.stands_alone() {
            return Err(Refused::HasLeader);
        }
        self.core.campaign(false);
        self.absorb_own(Payloads::None);
        Ok(())
    }

    /// Hands leadership to a voter, which stands for election as soon as it has all entries. Proposals are refused
    /// meanwhile, and there is no lease: it can't be known when the other is elected. If it is not within an election
    /// timeout this replica begins a new term of its own, by which an order that is still on its way is void.
    pub fn transfer(&mut self, now: Tick, to: ReplicaId) -> Result<(), Refused> {
        self.clock.now = now;
        if self.leadership.role != Role::Leader || self.clock.transfer_due.is_some() {
            return Err(Refused::NotLeading { leader: self.core.leader() });
        }
        if to == self.id || !self.membership().is_voter(to) {
            return Err(Refused::NotAVoter(to));
        }
        self.wake();
        self.clock.transfer_due = Some(now.after(self.clock.timing.election));
        self.core.transfer(to);
        self.absorb_own(Payloads::None);
        Ok(())
    }

    fn end_transfer(&mut self) {
        if !self.can_campaign() {
            self.clock.transfer_due = Some(self.clock.now.after(1));
            return;
        }
        self.core.step_down();
        self.core.campaign(true);
    }
}
