//! What other replicas say, and what it does here.

use super::*;

impl Group {
    /// A message that names another replica is another life's, and passed over.
    pub fn step(&mut self, now: Tick, message: Message) -> Result<(), Violation> {
        self.clock.now = now;
        if message.to != self.id {
            return Ok(());
        }
        self.core.check(&message)?;
        match &message.body {
            Body::Vote(vote) => self.hear_vote(&message, vote.forced),
            Body::TimeoutNow { sent } => {
                let in_time = self.core.leader() == Some(message.from) && *sent >= self.clock.leader_sent;
                if in_time && self.can_campaign() { self.pass_on(&message) } else { Ok(()) }
            }
            Body::Removed => {
                // One that has nothing is not in the group yet, as far as its leader knows.
                let was_in = self.next_index() > RaftIndex(0);
                self.removed |= was_in && message.term >= self.core.term();
                self.output.removed = self.removed;
                Ok(())
            }
            Body::SnapshotOffer(_) => self.hear_offer(message),
            Body::Append(_) => self.hear_leader(message, None),
            Body::Heartbeat(beat) => {
                let beat = *beat;
                self.hear_leader(message, Some(beat))
            }
            Body::HeartbeatAnswer(answer) => {
                let answer = *answer;
                self.hear_answer(message, answer)
            }
            Body::AppendAnswer(_) | Body::VoteAnswer(_) => {
                // A follower leaves a rest at its leader's word: one that comes late for another role is none.
                if self.leadership.role == Role::Leader {
                    self.wake();
                }
                self.pass_on(&message)
            }
        }
    }

    fn pass_on(&mut self, message: &Message) -> Result<(), Violation> {
        // Who is told of a leader that is none any more says so all the same.
        let current = message.term >= self.core.term();
        self.core.step(message);
        match &message.body {
            Body::Append(append) => {
                self.quiet = append.quiet && current;
                let heard = self.absorb(Payloads::Received(&append.entries));
                self.quiet = false;
                heard
            }
            _ => self.absorb(Payloads::None),
        }
    }

    fn hear_vote(&mut self, message: &Message, forced: bool) -> Result<(), Violation> {
        if self.leads_surely() && !self.core.membership_will_have(message.from) {
            let body = Body::Removed;
            let (from, to, term) = (self.id, message.from, self.core.term());
            self.output.messages.push(Message { from, to, term, body });
            return Ok(());
        }
        let leads = self.leadership.role == Role::Leader;
        if leads {
            self.wake();
        }
        // What was promised was promised to the leader. Where that asks for a later term's votes it leads no more.
        let resigned = self.core.leader() == Some(message.from) && message.term > self.core.term();
        let promised = (self.clock.now < self.clock.promised_until && !resigned) || leads;
        if promised && !forced && message.term >= self.core.term() {
            return Ok(());
        }
        self.pass_on(message)
    }

    fn hear_leader(&mut self, message: Message, beat: Option<Heartbeat>) -> Result<(), Violation> {
        let (from, current) = (message.from, message.term >= self.core.term());
        if current && !beat.is_some_and(|beat| beat.rest) {
            self.wake();
        }
        if let Some(beat) = beat {
            self.echo = HeartbeatAnswer { committed: beat.committed, sent: beat.sent, rest: beat.rest };
        }
        self.pass_on(&message)?;
        if current && self.core.leader() == Some(from) {
            let sent = beat.map_or(Tick(0), |beat| beat.sent);
            self.clock.leader_sent = self.clock.leader_sent.max(sent);
            self.clock.heard_leader();
        }
        Ok(())
    }

    fn hear_answer(&mut self, message: Message, answer: HeartbeatAnswer) -> Result<(), Violation> {
        if message.term == self.core.term() && self.leadership.role == Role::Leader {
            // An answer from before the group was busy says nothing of a rest now.
            let rests = answer.rest && answer.sent > self.clock.busy;
            self.lease.answered(message.from, answer.sent, rests);
            if !answer.rest && self.resting {
                self.wake();
            }
        }
        self.pass_on(&message)?;
        self.rest_if_all_agree();
        Ok(())
    }

    fn hear_offer(&mut self, message: Message) -> Result<(), Violation> {
        let (from, term) = (message.from, message.term);
        let Body::SnapshotOffer(offer) = message.body else { return Ok(()) };
        let current = term >= self.core.term();
        // To raft-rs this is the leader's sign of life; the state itself is fetched outside of it.
        let beat = Heartbeat { committed: RaftIndex(0), sent: Tick(0), rest: false };
        let sign = Message { from, to: self.id, term, body: Body::Heartbeat(beat) };
        self.hear_leader(sign, Some(beat))?;
        if !current {
            return Ok(());
        }
        if self.core.needs(&offer) {
            self.output.install = Some(offer);
            return Ok(());
        }
        self.core.commit_offered(&offer);
        self.answer_offer(from);
        self.absorb(Payloads::None)
    }

    fn answer_offer(&mut self, to: ReplicaId) {
        let committed = self.core.committed();
        let body =
            Body::AppendAnswer(AppendAnswer { committed, outcome: Outcome::Matched { end: committed } });
        let (from, term) = (self.id, self.core.term());
        self.gate.say(Said::Message(Message { from, to, term, body }), self.core.hard_state());
    }
}
