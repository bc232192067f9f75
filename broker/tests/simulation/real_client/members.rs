//! Programs that read as members of a group: they poll, work, commit, and leave in all the ways there are.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_client::{
    Client, Consumer, ConsumerConfig, ConsumerRecord, Error, ErrorCode, RebalanceListener, TopicPartition,
};
use corelog_io::{Dice, sleep};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::apps::App;
use super::plan::{API_TIMEOUT, CLOSE_TIMEOUT, Commits, GroupPlan, POLL_INTERVAL_MAX, topic_name};
use super::truth::{note, world_now};
use crate::shared::below;

pub async fn take_part(app: Rc<App>, group: usize, plan: GroupPlan) {
    while !app.stopped() {
        let Some(client) = app.connect().await else { continue };
        let mut members = Vec::new();
        while !app.stopped() {
            let mut member = Member::new(&app, &client, group, &plan);
            members.push(member.id);
            member.live().await;
            if app.misbehaves(4) {
                break;
            }
        }
        if app.stopped() {
            app.check_leftovers().await;
        }
        drop(client);
        members.into_iter().for_each(|member| app.truth().gone(member));
    }
}

struct Member<'a> {
    app: &'a Rc<App>,
    plan: &'a GroupPlan,
    id: usize,
    consumer: Option<Consumer>,
    /// What the latest poll gave.
    batch: Vec<ConsumerRecord>,
    /// Subscribed to all topics: as everybody is to be at last, so that each partition has an owner.
    reads_all: bool,
}

enum End {
    Close,
    Abandon,
    Drop,
}

impl<'a> Member<'a> {
    fn new(app: &'a Rc<App>, client: &Client, group: usize, plan: &'a GroupPlan) -> Member<'a> {
        let id = app.truth().new_member(group, app.machine);
        let listener = RebalanceListener(Arc::new(app.truth().listener(id)));
        let mut dice = Dice(corelog_io::random_u64());
        let config = ConsumerConfig {
            rebalance_listener: Some(listener),
            ..plan.config(group, app.machine, &mut dice)
        };
        let consumer = Some(client.consumer(config).expect("the config is sound"));
        Member { app, plan, id, consumer, batch: Vec::new(), reads_all: false }
    }

    fn consumer(&self) -> &Consumer {
        self.consumer.as_ref().expect("it lives")
    }

    async fn live(&mut self) {
        self.subscribe();
        let polls = 20 + below(200);
        for turn in 0.. {
            if self.app.stopped() || (!self.app.is_calm() && turn > polls) {
                return self.end(End::Close).await;
            }
            if self.app.is_calm() && !self.reads_all {
                self.subscribe();
            }
            self.done_with_batch();
            self.poll().await;
            self.app.work().await;
            if self.app.misbehaves(40) {
                if self.strays().await {
                    return;
                }
            } else if below(4) == 0 {
                self.commit().await;
            }
        }
    }

    fn subscribe(&mut self) {
        let topics: Vec<String> = (0..self.app.plan().topics.len()).map(topic_name).collect();
        // Not all of them, sometimes. Of static members that come back with other topics a group takes no notice, as in Kafka.
        let some = match !self.plan.is_static && self.app.misbehaves(3) {
            true => &topics[..1],
            false => &topics[..],
        };
        self.reads_all = some.len() == topics.len();
        self.consumer().subscribe(some.iter().map(String::as_str)).expect("it is open");
    }

    /// By the rule of polling: said by the next poll, by a commit, by closing.
    fn done_with_batch(&mut self) {
        self.app.truth().processed(self.id, &self.batch);
    }

    async fn poll(&mut self) {
        let timeout = Duration::from_millis(below(800));
        let polled = self.app.within(timeout, "poll", self.consumer().poll(timeout)).await;
        self.batch = match polled {
            Ok(records) => {
                self.app.truth().gave(self.id, &records);
                records
            }
            Err(error) => {
                self.expect_failure("poll", &error);
                Vec::new()
            }
        };
    }

    /// Two polls at once: the second says that all before is done, and so what the first may give.
    async fn poll_twice(&mut self) {
        self.done_with_batch();
        let timeouts = [below(800), below(800)].map(Duration::from_millis);
        let this = &*self;
        let poll = async |timeout| match this.app.within(timeout, "poll", this.consumer().poll(timeout)).await
        {
            Ok(records) => this.app.truth().processed(this.id, &records),
            Err(error) => this.expect_failure("poll", &error),
        };
        FuturesUnordered::from_iter(timeouts.map(poll)).collect::<Vec<()>>().await;
        self.batch.clear();
    }

    fn expect_failure(&self, what: &str, error: &Error) {
        note(|| format!("{:?}: member {}: {what}: {error}", world_now(), self.id));
        let explained = error.is_retriable() || matches!(error, Error::NotMember { .. });
        assert!(explained, "{what}: {error}");
    }

    /// Positions are what polls gave: all of that is done.
    async fn commit(&mut self) {
        match self.plan.commits {
            Commits::Automatic => {}
            Commits::Background => {
                self.done_with_batch();
                self.consumer().commit_in_background().expect("it is open");
            }
            Commits::Explicit => {
                self.done_with_batch();
                let positions = self.positions();
                let committed = self.app.within(API_TIMEOUT, "commit", self.consumer().commit()).await;
                match committed {
                    Ok(()) => self.app.truth().committed(self.id, &positions),
                    Err(error) => {
                        self.expect_failure("commit", &error);
                        let rebalances = error.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS);
                        assert!(!rebalances, "a commit is retried until the group has rebalanced: {error}");
                    }
                }
            }
        }
    }

    fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        let consumer = self.consumer();
        let known = consumer.assignment().into_iter().filter_map(|at| {
            let position = consumer.position(&at).expect("it is assigned")?;
            Some((at, position))
        });
        known.collect()
    }

    /// Something that programs do, and should not. Whether that was its end.
    async fn strays(&mut self) -> bool {
        match below(7) {
            // An error in the middle of a batch.
            0 | 1 => {
                self.batch.truncate(below(1 + self.batch.len() as u64) as usize);
                self.done_with_batch();
                self.end(if below(2) == 0 { End::Drop } else { End::Abandon }).await;
                return true;
            }
            2 => {
                self.app.truth().keep_out(self.id, Duration::MAX);
                sleep(POLL_INTERVAL_MAX.mul_f64(0.5 + below(100) as f64 / 100.0)).await;
                self.app.truth().keep_out(self.id, world_now());
            }
            3 => {
                // If commits are automatic, what was polled before the latest poll is committed.
                self.consumer().unsubscribe();
                self.batch.clear();
                sleep(Duration::from_millis(below(1_000))).await;
                self.subscribe();
            }
            4 => self.subscribe(),
            5 => self.poll_twice().await,
            _ => {
                self.end(End::Close).await;
                return true;
            }
        }
        false
    }

    async fn end(&mut self, end: End) {
        let consumer = self.consumer.take().expect("it lives");
        match end {
            End::Close => {
                self.done_with_batch();
                let closed = self.app.within(CLOSE_TIMEOUT, "close", consumer.close()).await;
                if let Err(error) = closed {
                    self.expect_failure("close", &error);
                }
            }
            End::Abandon => {
                let closed = self.app.within(CLOSE_TIMEOUT, "abandon", consumer.abandon()).await;
                if let Err(error) = closed {
                    self.expect_failure("abandon", &error);
                }
            }
            End::Drop => drop(consumer),
        }
        self.app.truth().gone(self.id);
    }
}
