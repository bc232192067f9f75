//! Entries to followers: as many as there is room for, in frames.

use crate::core::AppendOrder;
use crate::frame::encode_append;
use crate::message::Append;

use super::*;

enum Room {
    Yes,
    /// The shard's window or the follower's is full.
    InFlight,
    /// The peer's queue is, or it isn't connected.
    Queue,
}

impl Driver {
    pub(super) fn order(&mut self, key: usize, order: &AppendOrder) {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        match slot.pipes.iter_mut().find(|pipe| pipe.to == order.to) {
            Some(pipe) => {
                let in_flight = pipe.bytes;
                if pipe.order(order) {
                    self.in_flight -= in_flight;
                }
            }
            None => slot.pipes.push(Pipe::new(order)),
        }
        self.will_send(key);
    }

    pub(super) fn will_send(&mut self, key: usize) {
        let Some(slot) = self.groups[key].as_mut() else { return };
        if !std::mem::replace(&mut slot.sends, true) {
            self.sends.push(key);
        }
    }

    pub(super) fn pipe_matched(&mut self, key: usize, from: ReplicaId, term: Term, end: RaftIndex) {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        let Some(at) = slot.pipes.iter().position(|pipe| pipe.to == from && pipe.term == term) else {
            return;
        };
        let freed = slot.pipes[at].matched(end);
        self.in_flight -= freed;
        self.will_send(key);
        if freed > 0 {
            let crowded = std::mem::take(&mut self.crowded);
            crowded.into_iter().for_each(|key| self.will_send(key));
        }
    }

    /// The group leads no more, or is gone.
    pub(super) fn drop_pipes(&mut self, key: usize) {
        let Some(slot) = self.groups[key].as_mut() else { return };
        self.in_flight -= slot.pipes.drain(..).map(|pipe| pipe.bytes).sum::<u64>();
        let crowded = std::mem::take(&mut self.crowded);
        crowded.into_iter().for_each(|key| self.will_send(key));
    }

    /// Who left the group is sent nothing more.
    pub(super) fn keep_pipes_to(&mut self, key: usize, membership: &Membership) {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        let gone = slot.pipes.extract_if(.., |pipe| !membership.contains(pipe.to));
        self.in_flight -= gone.map(|pipe| pipe.bytes).sum::<u64>();
    }

    /// A peer that can't be reached holds no room that others need. What it was sent is sent again.
    pub(super) fn give_up_pipes_to(&mut self, id: PeerId) {
        for key in 0..self.groups.len() {
            let leads_to = |slot: &Slot| slot.pipes.iter().position(|pipe| slot.peer_of(pipe.to) == Some(id));
            while let Some(at) = self.groups[key].as_ref().and_then(leads_to) {
                self.give_up_pipe(key, at);
            }
        }
        let crowded = std::mem::take(&mut self.crowded);
        crowded.into_iter().for_each(|key| self.will_send(key));
    }

    /// What it still had to send is asked of Raft anew: from disk, or as a snapshot where retention was faster.
    pub(super) fn give_up_pipe(&mut self, key: usize, at: usize) {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        let pipe = slot.pipes.swap_remove(at);
        self.in_flight -= pipe.bytes;
        slot.group.unreachable(self.now, pipe.to);
        self.note(key, Ok(()));
    }

    /// After the turn's entries are in their logs: makes the frames that leave.
    pub fn send(&mut self, logs: &mut impl Logs) {
        for key in std::mem::take(&mut self.sends) {
            if let Some(slot) = self.groups[key].as_mut() {
                slot.sends = false;
                // From the last: one that is given up leaves its place to one that was seen to.
                for at in (0..slot.pipes.len()).rev() {
                    self.send_pipe(key, at, logs);
                }
                self.forget_idle_pipes(key);
            }
        }
        for peer in self.peers.values_mut() {
            peer.flush(self.now, &self.timing, &self.bounds);
        }
    }

    fn forget_idle_pipes(&mut self, key: usize) {
        if let Some(slot) = self.groups[key].as_mut().filter(|slot| slot.group.is_resting()) {
            slot.pipes.retain(|pipe| !pipe.is_idle());
        }
    }

    fn send_pipe(&mut self, key: usize, at: usize, logs: &mut impl Logs) {
        loop {
            let slot = self.groups[key].as_ref().expect("a group of this driver");
            let pipe = &slot.pipes[at];
            if !pipe.wants() {
                return;
            }
            let Some(id) = slot.peer_of(pipe.to) else { return };
            let room = self.room(pipe, id);
            match room {
                Room::Yes => {}
                Room::Queue => {
                    if let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.connected) {
                        peer.stalled.insert(key);
                    }
                    return;
                }
                Room::InFlight if pipe.notice => {}
                Room::InFlight => {
                    self.crowded.insert(key);
                    return;
                }
            }
            if pipe.notice && (!pipe.wants_entries() || !matches!(room, Room::Yes)) {
                if !self.send_entries(key, at, Vec::new()) {
                    return;
                }
                continue;
            }
            let (group, from, to) = (slot.id, pipe.next, pipe.end);
            match logs.entries(group, from, to, self.bounds.append_bytes) {
                Some(entries) if entries.is_empty() => return self.give_up_pipe(key, at),
                Some(entries) => {
                    if !self.send_entries(key, at, entries) {
                        return;
                    }
                }
                None => {
                    self.groups[key].as_mut().expect("it was there").pipes[at].reading = Some(from);
                    return;
                }
            }
        }
    }

    /// Half of the shard's room is for followers that owe nothing: those that are slow can't have all of it.
    fn room(&self, pipe: &Pipe, id: PeerId) -> Room {
        if !self.peers.get(&id).is_some_and(|peer| peer.has_room(&self.bounds)) {
            return Room::Queue;
        }
        let has_room = if pipe.bytes == 0 {
            self.in_flight < self.bounds.shard_bytes
        } else {
            pipe.bytes < self.bounds.follower_bytes && self.in_flight < self.bounds.shard_bytes / 2
        };
        if has_room { Room::Yes } else { Room::InFlight }
    }

    /// Entries that were not in memory when they were asked for; none where they could not be read, and the follower is
    /// asked anew what it has.
    pub fn entries_read(&mut self, now: Tick, group: GroupId, from: RaftIndex, entries: Vec<Entry>) {
        self.now = now;
        let Some(&key) = self.by_id.get(&group) else { return };
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        for at in (0..slot.pipes.len()).rev() {
            let pipe = &mut self.groups[key].as_mut().expect("it was there").pipes[at];
            if pipe.reading != Some(from) {
                continue;
            }
            pipe.reading = None;
            if entries.is_empty() {
                self.give_up_pipe(key, at);
            } else {
                self.send_entries(key, at, entries.clone());
            }
        }
        self.will_send(key);
    }

    /// False: they fit no more, or lead nowhere.
    fn send_entries(&mut self, key: usize, at: usize, mut entries: Vec<Entry>) -> bool {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        let (group, leadership) = (slot.id, slot.group.leadership());
        let pipe = &mut slot.pipes[at];
        entries.retain(|entry| entry.index < pipe.end);
        // What was read may be of a log that was cut since, or of a follower that went back.
        let fits = entries.first().is_none_or(|entry| entry.index == pipe.next);
        if leadership.role != Role::Leader || leadership.term != pipe.term || !fits {
            return false;
        }
        let (start, term_before) = (pipe.next, pipe.term_before);
        let (from, to, term) = (slot.group.id(), pipe.to, pipe.term);
        let is_notice = entries.is_empty();
        let quiet = is_notice && pipe.is_quiet();
        self.in_flight += pipe.sent(&entries);
        let append = Append { start, term_before, committed: slot.group.committed(), quiet, entries };
        let message = Message { from, to, term, body: Body::Append(append) };
        let (now, bounds) = (self.now, self.bounds);
        match self.peer_for(key, to).filter(|peer| peer.connected) {
            Some(peer) if is_notice => peer.say(now, group, message, &bounds),
            Some(peer) => peer.push(encode_append(group, &message)),
            None => {}
        }
        true
    }
}
