//! Membership in a group, by the classic protocol: join, sync, heartbeats, and giving up what others are to have.
//!
//! One task on the driver. It holds the group's rule towards the application: partitions are taken away only between two polls, with
//! what was polled before committed (if commits are automatic), or when membership is lost anyway.

mod join;

use super::Shared;
use super::assignor::Assignments;
use super::buffer::{Rebalance, Start};
use super::commit;
use crate::core::{CoordinatorType, Core, Lane, OwnLane};
use crate::driver::{self, Event};
use crate::error::{Error, Result};
use crate::groups::Committer;
use crate::net::Connection;
use crate::planted::{Fault, planted};
use crate::topic_partition::TopicPartition;
use corelog_wire::messages::{HeartbeatRequest, LeaveGroupRequest, leave_group_request};
use corelog_wire::{ErrorCode, Str};
use futures_util::future::{Either, pending, select};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Beyond the time that the coordinator waits for all members to join.
const JOIN_GRACE: Duration = Duration::from_secs(5);

pub(super) struct Membership {
    core: Rc<Core>,
    shared: Arc<Shared>,
    /// Told whenever the application did something.
    news: Event,
    group: Str,
    lane: Lane,
    instance_id: Option<Str>,
    member_id: Str,
    generation: i32,
    /// All our assignors let members keep partitions through a rebalance.
    cooperative: bool,
    owned: BTreeSet<TopicPartition>,
    /// As leader: the partition counts that the assignment was made for.
    counts: Option<BTreeMap<Str, i32>>,
    /// As leader: when the group should have come together again, so that partitions change hands which nobody was given yet. Who
    /// was to give them up may be gone, and a static member comes back without a word of it.
    next_round: Option<Instant>,
    /// The subscription that was joined with.
    joined: u64,
    /// Tries to join since it was a member.
    failures: u32,
    heartbeat_at: Instant,
    /// Of the coordinator's last word.
    heard_at: Instant,
}

/// Why a stable member stops being one.
#[derive(Debug)]
enum Change {
    /// The group rebalances, or should.
    Rebalance,
    /// The coordinator no longer knows this member, or its generation.
    Lost,
    /// The application did not poll for too long.
    Idle,
    /// The application gives all up by itself, by closing the consumer too: nothing has to wait for it.
    Unsubscribed,
    Failed(Error),
}

/// Done when the consumer is closed and has left; the outcome is that of its last commit.
pub(super) async fn run(core: Rc<Core>, shared: Arc<Shared>, news: Event, group: Str) -> Result<()> {
    let config = &shared.config;
    let own = OwnLane::new(&core);
    let mut membership = Membership {
        lane: own.lane,
        group,
        instance_id: config.instance_id.as_deref().map(Str::from),
        member_id: Str::new(),
        generation: -1,
        cooperative: config.assignors.iter().all(|assignor| assignor.is_cooperative()),
        owned: BTreeSet::new(),
        counts: None,
        next_round: None,
        joined: 0,
        failures: 0,
        heartbeat_at: driver::now(),
        heard_at: driver::now(),
        news,
        shared: shared.clone(),
        core: core.clone(),
    };
    while let Some(topics) = membership.subscribed().await {
        let change = match membership.join(&topics).await {
            Ok(()) => membership.stay().await,
            Err(change) => change,
        };
        membership.settle(change).await;
    }
    membership.leave().await
}

impl Membership {
    /// Waits until there are topics to subscribe to; none when the consumer is closed.
    async fn subscribed(&mut self) -> Option<Arc<BTreeSet<Str>>> {
        loop {
            let news = self.news.listen();
            {
                let buffer = self.shared.lock();
                if buffer.closed.is_some() {
                    return None;
                }
                if let Some(topics) = &buffer.subscription {
                    self.joined = buffer.subscription_version;
                    return Some(topics.clone());
                }
            }
            // Whoever takes to assigning partitions itself is no member.
            if let Err(error) = self.leave().await {
                self.shared.lock().fail(error);
            }
            news.await;
        }
    }

    /// What the application wants is no longer what was joined for.
    fn unwanted(&self) -> Option<Change> {
        let buffer = self.shared.lock();
        if buffer.closed.is_some() || buffer.subscription.is_none() {
            return Some(Change::Unsubscribed);
        }
        (buffer.subscription_version != self.joined).then_some(Change::Rebalance)
    }

    /// A commit was told so, which may be long before a heartbeat is.
    fn is_expelled(&self) -> bool {
        self.shared.lock().committer.is_none()
    }

    /// Becomes a member with an assignment.
    async fn join(&mut self, topics: &BTreeSet<Str>) -> std::result::Result<(), Change> {
        // What others may be given must be free by then (KIP-429): as Kafka's clients do in `onJoinPrepare`.
        let keeps = |at: &TopicPartition| {
            (self.cooperative && topics.contains(&at.topic)) || planted(Fault::AllIsKeptWhileJoining)
        };
        let dropped: BTreeSet<TopicPartition> = self.owned.iter().filter(|at| !keeps(at)).cloned().collect();
        if !dropped.is_empty() {
            self.give_up(&dropped).await?;
        }
        if self.cooperative {
            self.shared.lock().end_rebalance();
        }
        topics.iter().for_each(|topic| self.core.want(topic));
        self.failures += 1;
        self.shared.lock().is_joining = true;
        let response = self.join_once(topics).await?;
        self.heard_at = driver::now();
        self.member_id = response.member_id.detach();
        self.generation = response.generation_id;
        let is_leader = response.leader == response.member_id;
        let protocol = response.protocol_name.clone().unwrap_or_default();
        let (mut assignments, mut counts, mut has_all) = (Assignments::new(), None, true);
        if is_leader {
            (assignments, counts) = self.assign(&response, &protocol).await.map_err(Change::Failed)?;
            let given: usize = assignments.values().map(|partitions| partitions.len()).sum();
            has_all = counts.iter().flatten().map(|(_, count)| *count as usize).sum::<usize>() <= given;
            if response.skip_assignment {
                // It is there already; what is left to a leader is to see topics change (KIP-814).
                assignments.clear();
            }
        }
        let assigned = self.sync(protocol, assignments).await?;
        self.counts = counts;
        let config = &self.shared.config;
        let patience = config.poll_interval_max + config.session_timeout;
        self.next_round = (!has_all).then(|| driver::now() + patience);
        self.failures = 0;
        self.heard_at = driver::now();
        self.heartbeat_at = self.heard_at + self.shared.config.heartbeat_interval;
        {
            let committer = Committer {
                member_id: self.member_id.clone(),
                instance_id: self.instance_id.clone(),
                generation: self.generation,
            };
            let mut buffer = self.shared.lock();
            (buffer.committer, buffer.is_joining) = (Some(committer), false);
        }
        self.take_over(assigned).await
    }

    async fn connection(&self) -> std::result::Result<Rc<Connection>, Change> {
        self.core
            .coordinator(CoordinatorType::Group, &self.group, self.lane)
            .await
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: Error) -> Change {
        if error.is_retriable() {
            self.core.forget_coordinator(CoordinatorType::Group, &self.group);
        }
        Change::Failed(error)
    }

    /// What the group answers when its members have come, unless it forgets this one: an answer that got lost is waited for as long as a
    /// rebalance may take, and by then others would have what is kept here.
    async fn answered<T>(
        &self,
        connection: &Connection,
        call: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Change> {
        match select(pin!(self.unless_unwanted(call)), pin!(self.forgotten())).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => {
                // What comes next must not wait behind it.
                let reason = format!("group {:?} went on without this member", self.group);
                connection.close(Error::Disconnected { address: connection.address.clone(), reason });
                Err(Change::Lost)
            }
        }
    }

    /// Done when the coordinator does not know this member any more, or must be taken not to. Asks beside the call that waits.
    async fn forgotten(&self) {
        if self.owned.is_empty() {
            return pending().await;
        }
        let mut heard_at = driver::now();
        while driver::elapsed(heard_at) <= self.shared.config.session_timeout {
            driver::sleep(self.shared.config.heartbeat_interval).await;
            match self.heartbeat_once(Lane::SHARED, heard_at).await {
                Ok(ErrorCode::UNKNOWN_MEMBER_ID) => return,
                Ok(code) if !code.is_retriable() => heard_at = driver::now(),
                Ok(_) | Err(_) => self.core.forget_coordinator(CoordinatorType::Group, &self.group),
            }
        }
    }

    /// Does it unless the consumer is closed or subscribes to something else meanwhile.
    async fn unless_unwanted<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Change> {
        let mut work = pin!(work);
        loop {
            let news = self.news.listen();
            if let Some(change) = self.unwanted() {
                return Err(change);
            }
            match select(work.as_mut(), news).await {
                Either::Left((done, _)) => return done.map_err(|error| self.failed(error)),
                Either::Right(_) => {}
            }
        }
    }

    /// Makes the assignment the consumer's. What it has and is to lose is given up, and told to the group by joining again.
    async fn take_over(&mut self, assigned: BTreeSet<TopicPartition>) -> std::result::Result<(), Change> {
        let lost: BTreeSet<TopicPartition> = self.owned.difference(&assigned).cloned().collect();
        if !lost.is_empty() {
            self.give_up(&lost).await?;
        }
        let added: Vec<TopicPartition> = assigned.difference(&self.owned).cloned().collect();
        added.iter().for_each(|at| self.core.want(&at.topic));
        {
            let mut buffer = self.shared.lock();
            if buffer.closed.is_some() || buffer.subscription.is_none() {
                // What is there by now was assigned by hand.
                return Err(Change::Unsubscribed);
            }
            let all = assigned
                .iter()
                .map(|at| (at.clone(), (!buffer.partitions.contains_key(at)).then_some(Start::Committed)));
            let all = all.collect();
            buffer.assign(all);
            buffer.end_rebalance();
        }
        self.owned = assigned;
        self.shared.rebalanced(RebalanceEvent::Assigned(added));
        if lost.is_empty() { Ok(()) } else { Err(Change::Rebalance) }
    }

    /// At the next poll, commits what was polled before, and lets go.
    async fn give_up(&mut self, partitions: &BTreeSet<TopicPartition>) -> std::result::Result<(), Change> {
        self.wait_for_poll().await?;
        self.commit_last().await?;
        if self.is_expelled() {
            return Err(Change::Lost);
        }
        self.revoke(partitions, RebalanceEvent::Revoked);
        Ok(())
    }

    /// The group waits for us meanwhile, as long as there are heartbeats.
    async fn commit_last(&mut self) -> std::result::Result<(), Change> {
        let (shared, news) = (self.shared.clone(), self.news.clone());
        let mut committed = pin!(commit::last(&shared, &news));
        let deadline = self.core.deadline();
        while driver::now() < deadline {
            let until = deadline.min(self.heartbeat_at.max(driver::now() + Duration::from_millis(1)));
            // What cannot be committed will be read again by the next owner.
            if driver::timeout_at(until, committed.as_mut()).await.is_some() {
                break;
            }
            if shared.lock().closed.is_some() {
                return Err(Change::Unsubscribed);
            }
            // That it rebalances is known.
            match self.heartbeat().await {
                Err(Change::Rebalance) | Ok(()) => {}
                Err(change) => return Err(change),
            }
        }
        Ok(())
    }

    fn revoke(
        &mut self,
        partitions: &BTreeSet<TopicPartition>,
        event: fn(Vec<TopicPartition>) -> RebalanceEvent,
    ) {
        self.owned.retain(|at| !partitions.contains(at));
        {
            let mut buffer = self.shared.lock();
            buffer.revoke_shared(partitions);
            buffer.revoke_commits(partitions, &self.group);
        }
        if !partitions.is_empty() {
            self.shared.rebalanced(event(partitions.iter().cloned().collect()));
        }
    }

    async fn wait_for_poll(&mut self) -> std::result::Result<(), Change> {
        {
            let mut buffer = self.shared.lock();
            if buffer.rebalance == Rebalance::None {
                buffer.rebalance = Rebalance::Wanted;
            }
            buffer.wake_pollers();
        }
        loop {
            let news = self.news.listen();
            {
                let buffer = self.shared.lock();
                if buffer.closed.is_some() || buffer.subscription.is_none() {
                    return Err(Change::Unsubscribed);
                }
                if buffer.rebalance == Rebalance::Granted {
                    return Ok(());
                }
            }
            if self.is_idle() {
                return Err(Change::Idle);
            }
            let _ = driver::timeout_at(self.next_check(), news).await;
            // The group waits for us: that it rebalances is known.
            match self.heartbeat().await {
                Err(Change::Rebalance) | Ok(()) => {}
                Err(change) => return Err(change),
            }
        }
    }

    fn is_idle(&self) -> bool {
        let since = self.shared.lock().idle_since;
        since.is_some_and(|since| driver::elapsed(since) > self.shared.config.poll_interval_max)
    }

    fn next_check(&self) -> Instant {
        let idle = self.shared.lock().idle_since.map(|since| since + self.shared.config.poll_interval_max);
        idle.map_or(self.heartbeat_at, |idle| idle.min(self.heartbeat_at))
            .max(driver::now() + Duration::from_millis(1))
    }

    /// Keeps the membership until something changes.
    async fn stay(&mut self) -> Change {
        loop {
            let (news, updated) = (self.news.listen(), self.core.updated.listen());
            if let Some(change) = self.unwanted() {
                return change;
            }
            if self.is_expelled() {
                return Change::Lost;
            }
            if self.is_idle() {
                return Change::Idle;
            }
            if let Some(counts) = &self.counts {
                // Other members may read what this one does not.
                counts.keys().for_each(|topic| self.core.want(topic));
                if *counts != self.counts(counts.keys()) {
                    return Change::Rebalance;
                }
            }
            if self.next_round.is_some_and(|at| at <= driver::now()) {
                return Change::Rebalance;
            }
            let _ = driver::timeout_at(self.next_check(), select(news, updated)).await;
            if let Err(change) = self.heartbeat().await {
                return change;
            }
        }
    }

    /// If it is time.
    async fn heartbeat(&mut self) -> std::result::Result<(), Change> {
        let now = driver::now();
        if now < self.heartbeat_at {
            return Ok(());
        }
        self.heartbeat_at = now + self.shared.config.heartbeat_interval;
        match self.heartbeat_once(self.lane, self.heard_at).await {
            Ok(ErrorCode::NONE) => self.heard_at = driver::now(),
            Ok(ErrorCode::UNKNOWN_MEMBER_ID) if planted(Fault::ExpelledGoesOn) => {
                self.heard_at = driver::now()
            }
            Ok(ErrorCode::REBALANCE_IN_PROGRESS) => {
                self.heard_at = driver::now();
                return Err(Change::Rebalance);
            }
            Ok(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION) => return Err(Change::Lost),
            Ok(code) => {
                let error = Error::broker(code, format!("send a heartbeat to group {:?}", self.group));
                if !error.is_retriable() {
                    return Err(Change::Failed(error));
                }
                self.retry_heartbeat();
            }
            Err(error) if error.is_retriable() => self.retry_heartbeat(),
            Err(error) => return Err(Change::Failed(error)),
        }
        if driver::elapsed(self.heard_at) > self.shared.config.session_timeout {
            // By now the coordinator has taken us for dead.
            return Err(Change::Lost);
        }
        Ok(())
    }

    fn retry_heartbeat(&mut self) {
        self.core.forget_coordinator(CoordinatorType::Group, &self.group);
        self.heartbeat_at = driver::now() + self.core.backoff(0);
    }

    async fn heartbeat_once(&self, lane: Lane, heard_at: Instant) -> Result<ErrorCode> {
        let call = async {
            let connection = self.core.coordinator(CoordinatorType::Group, &self.group, lane).await?;
            let request = HeartbeatRequest {
                group_id: self.group.clone(),
                generation_id: self.generation,
                member_id: self.member_id.clone(),
                group_instance_id: self.instance_id.clone(),
            };
            Ok(ErrorCode(connection.call(&request).await?.error_code))
        };
        let deadline = heard_at.max(driver::now() - self.shared.config.session_timeout)
            + self.shared.config.session_timeout
            + self.shared.config.heartbeat_interval;
        let timed_out = || Error::Timeout {
            what: format!("heartbeat to group {:?}", self.group),
            after: self.shared.config.session_timeout,
            last: None,
        };
        driver::timeout_at(deadline, call).await.unwrap_or_else(|| Err(timed_out()))
    }

    /// Prepares for joining again, or for not doing so.
    async fn settle(&mut self, change: Change) {
        self.shared.lock().is_joining = false;
        match change {
            // Seen, and acted on, before joining again.
            Change::Unsubscribed => {}
            Change::Rebalance => self.hold_back().await,
            Change::Lost => {
                self.lose();
                self.hold_back().await;
            }
            Change::Idle => {
                let limit = self.shared.config.poll_interval_max;
                let reason =
                    format!("it did not poll for {limit:?}; poll more often, or raise poll_interval_max");
                self.shared.lock().fail(Error::NotMember { group: String::from(self.group.clone()), reason });
                self.shared.lock().is_away = true;
                // Nothing is committed for one that is idle.
                let _ = self.leave().await;
                loop {
                    let news = self.news.listen();
                    {
                        let mut buffer = self.shared.lock();
                        if !buffer.is_away || buffer.closed.is_some() {
                            buffer.is_away = false;
                            break;
                        }
                    }
                    news.await;
                }
            }
            Change::Failed(error) => {
                if error.code() == Some(ErrorCode::FENCED_INSTANCE_ID) {
                    self.fenced(error).await;
                    return;
                }
                if !error.is_retriable() {
                    self.shared.lock().fail(error);
                }
                if !self.owned.is_empty()
                    && driver::elapsed(self.heard_at) > self.shared.config.session_timeout
                {
                    // By now the coordinator has taken us for dead, and others have what was ours.
                    self.lose();
                }
                self.pause(self.failures.saturating_sub(1)).await;
            }
        }
    }

    fn lose(&mut self) {
        let all = self.owned.clone();
        self.revoke(&all, RebalanceEvent::Lost);
        self.forget_membership();
    }

    /// Whoever tries to join again and again in vain waits between.
    async fn hold_back(&self) {
        if let Some(failures) = self.failures.checked_sub(2) {
            self.pause(failures).await;
        }
    }

    async fn pause(&self, failures: u32) {
        let until = driver::now() + self.core.backoff(failures);
        while driver::now() < until && self.unwanted().is_none() {
            let news = self.news.listen();
            let _ = driver::timeout_at(until, news).await;
        }
    }

    /// Another process goes by the same instance id. It is the rightful one, since it came later.
    async fn fenced(&mut self, error: Error) {
        self.lose();
        let reason = format!("{error}: another consumer has its instance_id; give each its own");
        {
            let mut buffer = self.shared.lock();
            buffer.fail(Error::NotMember { group: String::from(self.group.clone()), reason });
            buffer.subscription = None;
        }
    }

    fn forget_membership(&mut self) {
        self.member_id = Str::new();
        self.generation = -1;
        let mut buffer = self.shared.lock();
        buffer.committer = None;
        buffer.end_rebalance();
    }

    /// Gives up what there is, and tells the coordinator. Static members stay on its list, idle ones too, as Kafka's clients have it:
    /// they may come back before the session ends.
    /// The outcome is that of the last commit.
    async fn leave(&mut self) -> Result<()> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let all = self.owned.clone();
        let is_idle = self.is_idle();
        let committed = match is_idle {
            true => Ok(()),
            false => commit::last(&self.shared, &self.news).await,
        };
        if !all.is_empty() {
            // Whoever does not poll may be at work on them while others have them already.
            self.revoke(&all, if is_idle { RebalanceEvent::Lost } else { RebalanceEvent::Revoked });
        }
        if self.instance_id.is_none() {
            // It would be noticed anyway, later.
            let reason = match is_idle {
                true => "the application did not poll in time",
                false => "the consumer was closed or unsubscribed",
            };
            let _ = self.leave_once(reason).await;
        }
        self.forget_membership();
        committed
    }

    async fn leave_once(&self, reason: &str) -> Result<()> {
        // Not behind a join or sync that may still be waiting.
        let connection = self.core.coordinator(CoordinatorType::Group, &self.group, Lane::SHARED).await?;
        let version = connection.pick::<LeaveGroupRequest>()?;
        let mut request = LeaveGroupRequest { group_id: self.group.clone(), ..Default::default() };
        match version {
            0..3 => request.member_id = self.member_id.clone(),
            _ => {
                request.members = vec![leave_group_request::MemberIdentity {
                    member_id: self.member_id.clone(),
                    group_instance_id: self.instance_id.clone(),
                    reason: Some(reason.into()),
                }];
            }
        }
        connection.call_version(&request, version, self.core.config.request_timeout).await.map(drop)
    }
}

/// What happened to a consumer's partitions in its group. Told on the client's own thread: whoever listens must not block it. A panic
/// there is an error of a poll, [`Error::ListenerPanicked`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebalanceEvent {
    /// These have come; none if the assignment stays as it was.
    Assigned(Vec<TopicPartition>),
    /// These were given up in good order: between two polls, and committed if commits are automatic.
    Revoked(Vec<TopicPartition>),
    /// These are gone already, and others may be reading them.
    Lost(Vec<TopicPartition>),
}

fn millis(duration: Duration) -> i32 {
    duration.as_millis().try_into().unwrap_or(i32::MAX)
}
